"""What a loader tells of how it reads, as a result keeps it."""

from stoker.core.result import Reading
from stoker.loader.loader import Loader


def reading_of(loader: Loader) -> Reading:
    """Return how `loader` has read so far."""
    told = loader.tuning
    return Reading(
        engine=told["engine"],
        **told["chosen"],
        start=told["start"],
        pinned=tuple(told["pinned"]),
        why=told["why"],
        settled=told["settled"],
        windows=told["windows"],
    )
