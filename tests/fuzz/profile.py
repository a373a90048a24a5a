"""How long runs draw their examples; loaded by name (`pytest -p tests.fuzz.profile`)."""

from hypothesis import settings

PROFILE = "fuzz"
EXAMPLES = 200

# Everything comes from the seed, so nothing is remembered from other runs. `derandomize` is said, since hypothesis
# turns it on by itself where it finds a CI, and then does not look at seeds.
settings.register_profile(PROFILE, deadline=None, database=None, derandomize=False, max_examples=EXAMPLES)
