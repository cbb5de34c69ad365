"""Which value of a setting won, over which others, and where each was written: for options that are rows, for keys of
DLIO's workloads, and for those of `stoker mlperf`."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from stoker.bench.run.dlio import TABLE, compose, resolve
from stoker.bench.run.dlio.config import without_secrets
from stoker.bench.run.dlio.tree import DEFAULT, FILE, OVERRIDE, SHIPPED, Leaf, find
from stoker.core.errors import UnknownNameError
from stoker.core.files import REDACTED, is_secret_name, redact_arguments
from stoker.core.options import Candidate, Option, settled
from stoker.core.registry import nearest

KINDS: Final = {OVERRIDE: "flag", FILE: "file", SHIPPED: "preset", DEFAULT: "default"}


class Explained(msgspec.Struct, frozen=True):
    """A setting. `candidates` are all values given for it, the winner first; `ways` are what could set it."""

    key: str
    value: Any
    candidates: tuple[Candidate, ...]
    ways: tuple[str, ...] = ()
    help: str = ""

    @property
    def winner(self) -> Candidate:
        """Return the candidate that won."""
        return self.candidates[0]

    def safe(self) -> "Explained":
        """Return it without secrets."""
        candidates = tuple(msgspec.structs.replace(each, value=_safe(self.key, each.value)) for each in self.candidates)
        return msgspec.structs.replace(self, value=_safe(self.key, self.value), candidates=candidates)


def _safe(key: str, value: Any) -> Any:
    if value is not None and is_secret_name(key):
        return REDACTED
    if isinstance(value, (list, tuple)):
        return redact_arguments([str(item) for item in value])
    return redact_arguments([value])[0] if isinstance(value, str) else without_secrets(value)


def named(options: Sequence[Option], key: str) -> Option | None:
    """Return the option of that name or spelling: `read_threads`, `--read-threads`, `-at`; None where there is none."""
    bare = key.lstrip("-").replace("-", "_")
    for option in options:
        if bare == option.name or key in option.spellings or f"-{key}" in option.spellings:
            return option
    return None


def unknown(key: str, known: Sequence[str]) -> UnknownNameError:
    """Return the error for a key that nothing has."""
    close = nearest(key.lstrip("-").replace("-", "_"), list(known))
    remedy = f"did you mean {close!r}?" if close else f"known: {', '.join(known)}"
    return UnknownNameError("no such setting", where=key, remedy=remedy)


def explain_option(option: Option, found: Sequence[Candidate], file_flag: str) -> Explained:
    """Return what became of an option. `file_flag` names the option that names a file of values."""
    variable = (option.variable,) if option.variable else ()
    ways = (option.flag, *option.spellings, *variable, file_flag)
    return Explained(option.name, settled(option, found).value, tuple(found), ways, option.help)


def explain_dlio(words: Sequence[str], key: str) -> Explained:
    """Return what became of a key of a DLIO command line; of a sweep, in its first run.

    Raises UnknownNameError for a key that neither DLIO's table nor the workload has, UsageError as the command would.
    """
    path = bare_key(key)
    composition = compose(words)[0]
    config = resolve(composition)
    resolved = config.values.get(path)
    node = find(composition.workload, path.split("."))
    if resolved is None and not isinstance(node, Leaf):
        raise unknown(path, sorted(config.values))
    chain = list(leaf_candidates(node if isinstance(node, Leaf) else None))
    if resolved is not None and not chain and resolved.origin.kind != DEFAULT:  # told under another spelling
        chain = [Candidate(resolved.value, KINDS[resolved.origin.kind], resolved.origin.where)]
    row = next((row for row in TABLE.rows if row.path == path), None)
    if row is not None:
        chain.append(Candidate(row.default, "default", "DLIO's table"))
    value = resolved.value if resolved is not None else chain[0].value
    ways = (f"++workload.{path}=VALUE", "a workload file (--config-dir)")
    return Explained(path, value, tuple(chain), ways, row.meaning if row is not None else "")


def bare_key(key: str) -> str:
    """Return a key below `workload`: `++workload.reader.batch_size` is `reader.batch_size`."""
    path = key.lstrip("+~").removeprefix("workload.")
    return f"reader.{path.removeprefix('data_reader.')}" if path.startswith("data_reader.") else path


def leaf_candidates(leaf: Leaf | None) -> Iterator[Candidate]:
    """Yield a leaf and all it was put over, the winner first."""
    while leaf is not None:
        yield Candidate(leaf.value, KINDS.get(leaf.origin.kind, leaf.origin.kind), leaf.origin.where)
        leaf = leaf.under
