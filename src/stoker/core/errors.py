"""The error tree, by what the caller can do about it.

    StokerError                 something went wrong; exit code 1
    ├─ UsageError               what was asked cannot be done: mend the request (2)
    │  ├─ UnknownNameError      a name nobody registered; the nearest known one is told
    │  └─ MissingExtraError     an optional package is absent; the install command is told
    ├─ PreflightError           the surroundings are unfit: mend them (5)
    ├─ StoreError               a store refused or failed; carries the key
    │  ├─ NotFoundError         no such object, bucket or folder
    │  ├─ AlreadyExistsError    the object is there and was not to be replaced
    │  ├─ DeniedError           credentials or permissions
    │  ├─ NoSpaceError          disk full, quota or file-size limit
    │  ├─ ShortReadError        fewer bytes than the object promised: never data
    │  ├─ TransientError        may succeed when repeated (throttled, reset, timed out)
    │  └─ UnavailableError      the endpoint does not answer, retries spent
    ├─ CorruptError             bytes are not what their format or checksum promises
    └─ InterruptedRunError      stopped by a signal; the result is partial (130, 143)

A message is one sentence built from: what was done, where, what was expected, what came, the remedy.
"""

from typing import Final

EXIT_GOOD: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NEGATIVE: Final = 3
EXIT_INVALID: Final = 4
EXIT_PREFLIGHT: Final = 5
EXIT_PARTIAL: Final = 6
EXIT_TIMEOUT: Final = 124


class StokerError(Exception):
    """A failure told in one sentence: what, where, expected, got, remedy (each but the first optional)."""

    exit_code = EXIT_FAILED

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        got: str = "",
        remedy: str = "",
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.got = got
        self.remedy = remedy
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        text = self.what + (f" {self.where!r}" if self.where else "")
        facts = [f"expected {self.expected}" if self.expected else "", f"got {self.got}" if self.got else ""]
        told = ", ".join(fact for fact in facts if fact)
        text += f": {told}" if told else ""
        return text + (f"; {self.remedy}" if self.remedy else "")

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip between processes: keyword-only arguments defeat the default."""
        return (_rebuild, (type(self), self.what, self.where, self.expected, self.got, self.remedy))


def _rebuild(kind: type[StokerError], what: str, where: str, expected: str, got: str, remedy: str) -> StokerError:
    return kind(what, where=where, expected=expected, got=got, remedy=remedy)


class UsageError(StokerError):
    """What was asked cannot be done; nothing was touched."""

    exit_code = EXIT_USAGE


class UnknownNameError(UsageError):
    """A name that nobody registered."""


class MissingExtraError(UsageError):
    """An optional package is not installed; the message ends in the command that installs it."""


class PreflightError(StokerError):
    """The surroundings are unfit for the run; nothing was started."""

    exit_code = EXIT_PREFLIGHT


class StoreError(StokerError):
    """A store refused or failed; `where` is the redacted URL of the object."""


class NotFoundError(StoreError):
    """No such object, bucket or folder."""


class AlreadyExistsError(StoreError):
    """The object is there and was not to be replaced."""


class DeniedError(StoreError):
    """Credentials are missing or refused, or permissions forbid it."""


class NoSpaceError(StoreError):
    """Disk full, quota or file-size limit; nothing half-written carries the object's name."""


class ShortReadError(StoreError):
    """Fewer bytes came than the object promised; they are withheld."""


class TransientError(StoreError):
    """May succeed when repeated."""


class UnavailableError(StoreError):
    """The endpoint does not answer, or the retries are spent."""


class CorruptError(StokerError):
    """Bytes are not what their format or checksum promises."""


class InterruptedRunError(StokerError):
    """Stopped by a signal or a deadline; what was measured is kept and labelled partial."""

    def __init__(self, what: str, *, signal_number: int = 2, **facts: str) -> None:
        super().__init__(what, **facts)
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the signal, too, on the trip between processes."""
        return (*super().__reduce__(), {"exit_code": self.exit_code})
