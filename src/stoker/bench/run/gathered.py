"""Checks before a run, all of them: what is wrong is told together, not one thing after the other."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from stoker.core.errors import (
    DeniedError,
    InterruptedRunError,
    NotFoundError,
    PreflightError,
    StokerError,
    UsageError,
)

T = TypeVar("T")


class SeveralError(PreflightError):
    """Several findings in one; `errors` are they, in the order in which they were found. The first decides the code."""

    def __init__(self, errors: Sequence[StokerError]) -> None:
        listed = "; ".join(f"({number}) {error}" for number, error in enumerate(errors, 1))
        super().__init__(f"{len(errors)} checks failed, so nothing was started", got=listed)
        self.errors = tuple(errors)
        self.exit_code = errors[0].exit_code

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes with all findings."""
        return (SeveralError, (self.errors,))


class Findings:
    """What checks found, one after the other: a later one is made although an earlier one failed."""

    def __init__(self) -> None:
        self.errors: list[StokerError] = []

    def tried(self, check: Callable[[], T]) -> T | None:
        """Return what a check returns, None where it failed: that is kept. A signal ends all checks."""
        try:
            return check()
        except InterruptedRunError:
            raise
        except StokerError as error:
            self.errors.append(error)
        except OSError as error:
            self.errors.append(_of_the_system(error))
        return None

    def require(self) -> None:
        """Raise what failed: a single error as it is, several as one SeveralError that lists them."""
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise SeveralError(self.errors)


def _of_the_system(error: OSError) -> StokerError:
    kinds = {PermissionError: DeniedError, FileNotFoundError: NotFoundError, NotADirectoryError: NotFoundError}
    return kinds.get(type(error), PreflightError)(error.strerror or str(error), where=str(error.filename or ""))


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
