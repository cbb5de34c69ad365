"""What a generation worker and the process that started it say to each other: one JSON object a line."""

from typing import Any

import msgspec

import stoker.core.errors
from stoker.core.errors import StokerError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import GenerateOptions, GenerateReport
from stoker.loader.dataset.progress import Progress


class Order(msgspec.Struct, frozen=True):
    """What a worker is to do. It comes on its standard input, since a URL may hold what others must not see."""

    url: str
    spec: DatasetSpec
    options: GenerateOptions


class ProgressMessage(msgspec.Struct, frozen=True, tag="progress"):
    """How far the worker is."""

    progress: Progress


class ReportMessage(msgspec.Struct, frozen=True, tag="report"):
    """The worker is through."""

    report: GenerateReport


class ErrorMessage(msgspec.Struct, frozen=True, tag="error"):
    """The worker failed; `kind` names a class of `stoker.core.errors`."""

    kind: str
    what: str
    where: str = ""
    expected: str = ""
    got: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: BaseException) -> "ErrorMessage":
        """Return the message that carries `error`."""
        if isinstance(error, StokerError):
            return cls(type(error).__name__, error.what, error.where, error.expected, error.got, error.remedy)
        return cls("StokerError", "generation failed in a way nobody foresaw", got=repr(error))

    def error(self) -> StokerError:
        """Return the error that was carried."""
        kind: Any = getattr(stoker.core.errors, self.kind, StokerError)
        if not (isinstance(kind, type) and issubclass(kind, StokerError)):
            kind = StokerError
        error: StokerError = kind(self.what, where=self.where, expected=self.expected, got=self.got, remedy=self.remedy)
        return error


Message = ProgressMessage | ReportMessage | ErrorMessage
