"""A resolved DLIO configuration: every key's value with its origin, and what is to be told about it."""

from typing import Any, Final

import msgspec

from stoker.bench.run.dlio.composing import Composition
from stoker.bench.run.dlio.keys import TABLE
from stoker.bench.run.dlio.tree import DEFAULT, FILE, OVERRIDE, SHIPPED, Origin
from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.files import REDACTED, is_secret_name, redact_url
from stoker.core.options import Setting

_SETTING_ORIGINS: Final = {DEFAULT: "default", SHIPPED: "preset", FILE: "file", OVERRIDE: "flag"}


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as the user may think: kind is unknown, misspelt, no_effect, not_run or refused_by_dlio."""

    kind: str
    path: str
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class Resolved(msgspec.Struct, frozen=True):
    """A key's value and where it comes from."""

    value: Any
    origin: Origin


class DlioConfig(msgspec.Struct, frozen=True):
    """Every known key resolved, beside the composition it came from. `dialect` is dlio or dl-driver."""

    name: str
    composition: Composition
    values: dict[str, Resolved]
    dialect: str = "dlio"
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def value(self, path: str) -> Any:
        """Return the value of a known key."""
        return self.values[path].value

    def text(self, path: str) -> str:
        """Return a text or choice; an absent one is an empty text."""
        return str(self.values[path].value or "")

    def whole(self, path: str) -> int:
        """Return a whole number."""
        return int(self.values[path].value)

    def number(self, path: str) -> float:
        """Return a number."""
        return float(self.values[path].value)

    def flag(self, path: str) -> bool:
        """Return a truth value."""
        return bool(self.values[path].value)

    def given(self, path: str) -> bool:
        """Tell whether the key was written anywhere."""
        return self.values[path].origin.kind != DEFAULT

    def where(self, path: str) -> str:
        """Return where the key was written, `the default` when nowhere."""
        return self.values[path].origin.where or "the default"

    def settings(self) -> dict[str, Setting]:
        """Return every value with its origin, secrets hidden, as a `Job` keeps them."""
        return {
            path: Setting(without_secrets(resolved.value), _SETTING_ORIGINS[resolved.origin.kind])
            for path, resolved in self.values.items()
        }


def query(config: DlioConfig) -> str:
    """Return what `workflow.query` asks for: one resolved value as text, a missing one as `None`.

    Raises UsageError when nothing is asked, UnknownNameError for a key that does not exist.
    """
    path = config.text("workflow.query").removeprefix("workload.")
    if not path:
        raise UsageError("nothing is queried", expected="++workload.workflow.query=reader.batch_size")
    if path.startswith("data_reader."):
        path = "reader." + path.removeprefix("data_reader.")
    if path not in config.values:
        close = TABLE.suggestion(path)
        raise UnknownNameError("no such key", where=path, remedy=f"did you mean {close!r}?" if close else "")
    value = config.value(path)
    return REDACTED if value and is_secret_name(path) else str(without_secrets(value))


def without_secrets(value: Any) -> Any:
    """Return plain data whose secret-looking keys are hidden, and URLs without user, password and signatures."""
    if isinstance(value, dict):
        return {name: REDACTED if is_secret_name(str(name)) else without_secrets(x) for name, x in value.items()}
    return redact_url(value) if isinstance(value, str) else value
