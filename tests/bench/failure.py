"""Why a benchmark ends without a number."""


class Unmeasured(Exception):
    """Something could not run, or a number could not be verified; the message says which."""
