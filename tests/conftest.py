"""What holds for all tests."""

from hypothesis import settings

# Time never decides a test: machines that run them are busy.
settings.register_profile("stoker", deadline=None)
settings.load_profile("stoker")
