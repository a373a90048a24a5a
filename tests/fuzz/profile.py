"""How long runs draw their examples; loaded by name (`pytest -p tests.fuzz.profile`)."""

from hypothesis import settings

PROFILE = "fuzz"
EXAMPLES = 200

# Everything comes from the seed, so nothing is remembered from other runs.
settings.register_profile(PROFILE, deadline=None, database=None, max_examples=EXAMPLES)
