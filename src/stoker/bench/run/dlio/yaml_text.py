"""YAML from strangers, as OmegaConf reads it, as a tree whose leaves know where they were written."""

from pathlib import Path
from typing import Any, Final

from stoker.bench.run.dlio.tree import FILE, Leaf, Node, Origin, Tree, copied, plain
from stoker.core.errors import UsageError
from stoker.core.plain_yaml import YamlRefusedError, read_yaml

FILE_BYTES_MAX: Final = 1 << 20


def load_file(path: Path, *, kind: str = FILE) -> Tree:
    """Return the mapping in the YAML file `path`.

    Raises UsageError, with file and line, for anything but one plain mapping.
    """
    if path.exists() and not path.is_file():
        raise UsageError("not a file", where=str(path), expected="a YAML file")
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        remedy = "a workload is chosen by workload=NAME" if path.suffix != ".yaml" else ""
        got = error.strerror or str(error)
        raise UsageError("file cannot be read", where=str(path), got=got, remedy=remedy) from error
    if len(data) > FILE_BYTES_MAX:
        raise UsageError("YAML file is too large", where=str(path), expected=f"at most {FILE_BYTES_MAX} bytes")
    try:
        return load_text(data.decode("utf-8"), str(path), kind=kind)
    except UnicodeDecodeError as error:
        raise UsageError("YAML file is not UTF-8 text", where=str(path), got=f"byte {error.start}") from error


def load_text(text: str, name: str, *, kind: str = FILE) -> Tree:
    """Return the mapping in the YAML text; `name` stands in messages and origins. An empty text is an empty mapping.

    Raises UsageError as `load_file` does.
    """
    try:
        found = read_yaml(text, _Planting(name, kind))
    except YamlRefusedError as error:
        where = f"{name}:{error.line}" if error.line else name
        raise UsageError(
            error.what, where=where, expected=error.expected, got=error.got, remedy=error.remedy
        ) from error
    if found is None or (isinstance(found, Leaf) and found.value is None):
        return {}
    if not isinstance(found, dict):
        raise UsageError("YAML file is not a mapping", where=name, expected="sections such as dataset:")
    return found


class _Planting:
    """Makes leaves that know file and line. Lists become leaves of plain data."""

    def __init__(self, name: str, kind: str) -> None:
        self._name = name
        self._kind = kind

    def scalar(self, value: Any, text: str, line: int) -> Node:
        """Return a leaf."""
        return Leaf(value, self._origin(line), text)

    def sequence(self, items: list[Any], line: int) -> Node:
        """Return a leaf that holds the list."""
        return Leaf([plain(item) for item in items], self._origin(line))

    def again(self, made: Node) -> Node:
        """Return a copy: the tree may be changed."""
        return copied(made) if isinstance(made, dict) else made

    def _origin(self, line: int) -> Origin:
        return Origin(self._kind, f"{self._name}:{line}" if line else self._name)
