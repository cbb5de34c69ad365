"""Checks before a run, all of them: what is wrong is told together, not one thing after the other."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from stoker.core.errors import InterruptedRunError, PreflightError, StokerError, UsageError


def gather(*checks: Callable[[], object]) -> None:
    """Make every check, then raise what failed: a single error as it is, several as one that tells them all.

    Several mistakes in what was asked are a UsageError, anything else among them makes it a PreflightError.
    """
    errors = []
    for check in checks:
        try:
            check()
        except InterruptedRunError:
            raise
        except StokerError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        kind = UsageError if all(isinstance(error, UsageError) for error in errors) else PreflightError
        raise kind(f"{len(errors)} checks failed, so nothing was started", got="; ".join(map(str, errors)))


def require_results(parent: str | Path) -> None:
    """Try whether a run's folder can be made below `parent`, and leave nothing. Raises PreflightError when not."""
    place = Path(parent).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return
    except OSError as error:
        raise PreflightError(
            "results folder cannot be made",
            where=f"{str(parent).rstrip('/')}/",
            got=error.strerror or "",
            remedy="choose another place for the results",
        ) from error
