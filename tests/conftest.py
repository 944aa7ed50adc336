"""For all tests."""

from hypothesis import settings

# A busy machine must not fail a property: no test asserts a time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
