"""The exit codes of `stoker mlperf`: those of the reference tool, for scripts test them."""

from typing import Final

from stoker.bench.run.gathered import SeveralError
from stoker.core.errors import (
    EXIT_TIMEOUT,
    DeniedError,
    InterruptedRunError,
    NotFoundError,
    PreflightError,
    StokerError,
    UsageError,
)

SUCCESS: Final = 0
GENERAL: Final = 1
ARGUMENTS: Final = 2
NOT_FOUND: Final = 3
PERMISSION: Final = 4
CONFIGURATION: Final = 5
FAILURE: Final = 6
TIMEOUT: Final = 7
INTERRUPTED: Final = 8
_CODES: Final = (
    (UsageError, ARGUMENTS),
    ((NotFoundError, FileNotFoundError, NotADirectoryError), NOT_FOUND),
    ((DeniedError, PermissionError), PERMISSION),
    (PreflightError, CONFIGURATION),
    (InterruptedRunError, INTERRUPTED),
)


class ConfigurationError(PreflightError):
    """What the command stands on is unfit (E101, E104, E404 …): code 5."""


class MissingPathError(NotFoundError):
    """A path that was named is not there: code 3."""

    exit_code = NOT_FOUND


def exit_code_of(error: BaseException) -> int:
    """Return the code of the reference tool for an error of ours, or of the system; of several the first one's."""
    if isinstance(error, SeveralError):
        return exit_code_of(error.errors[0])
    for kinds, code in _CODES:
        if isinstance(error, kinds):
            return code
    timed_out = isinstance(error, TimeoutError) or (isinstance(error, StokerError) and error.exit_code == EXIT_TIMEOUT)
    return TIMEOUT if timed_out else GENERAL
