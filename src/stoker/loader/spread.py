"""Durations drawn from a `Spread`."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.core.plan import Spread

_DRAWS: Final[dict[str, Callable[[np.random.Generator, Mapping[str, float], int], NDArray[np.float64]]]] = {
    "constant": lambda _, p, count: np.full(count, p["value"]),
    "normal": lambda chance, p, count: chance.normal(p["mean"], p["stdev"], count),
    "uniform": lambda chance, p, count: chance.uniform(p["min"], p["max"], count),
    "gamma": lambda chance, p, count: chance.gamma(p["shape"], p["scale"], count),
    "exponential": lambda chance, p, count: chance.exponential(p["scale"], count),
    "poisson": lambda chance, p, count: chance.poisson(p["lam"], count).astype(np.float64),
}


def draw_seconds(spread: Spread, seed: int, count: int) -> NDArray[np.float64]:
    """Return `count` durations drawn from the spread, made absolute as DLIO does; equal seeds give equal draws.

    Raises UsageError for an unknown kind, and for parameters that are missing or impossible.
    """
    draw = _DRAWS.get(spread.kind)
    if draw is None:
        raise UsageError("no such kind of duration", where=spread.kind, expected=" or ".join(_DRAWS))
    try:
        return np.abs(draw(np.random.default_rng(seed), spread.parameters, count))
    except (KeyError, ValueError) as error:
        raise UsageError(
            "parameters of a duration are no good", where=spread.kind, got=f"{spread.parameters}: {error}"
        ) from error
