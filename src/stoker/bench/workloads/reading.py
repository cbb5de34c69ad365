"""What a loader tells of how it reads, as a result keeps it."""

from collections.abc import Mapping
from typing import Any

from stoker.core.result import Reading
from stoker.loader.tuning_bounds import KNOBS


def reading_of(loader: object) -> Reading | None:
    """Return how `loader` reads, from its `tuning` (see `Tuner.told`); None for one that tells nothing."""
    told: Mapping[str, Any] | None = getattr(loader, "tuning", None)
    if not told:
        return None
    chosen = {knob: int(told["chosen"][knob]) for knob in KNOBS}
    return Reading(
        engine=str(told.get("engine", "")),
        **chosen,
        start=dict(told["start"]),
        pinned=tuple(told["pinned"]),
        why=str(told["why"]),
        settled=bool(told["settled"]),
        windows=int(told["windows"]),
    )
