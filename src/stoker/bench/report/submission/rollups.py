"""results.json and results.csv: of each model's folder, of each organisation, and of the whole tree.

JSON holds the figures as they were computed, CSV rounds to two decimals. Both are made anew from the leaves each time;
only the Public IDs are kept, in public_ids.json at the root: `{"v3.0-0001": {"key": "closed/…", "withdrawn": false}}`.
A row that is withdrawn there keeps its ID in the rollups and is blank otherwise.
"""

import csv
import fcntl
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.report.submission.rows import Row, rows_of
from stoker.bench.rules.mlperf.layout import PACKAGE, Tree, read_tree
from stoker.bench.rules.mlperf.rollups import FAMILY_COLUMNS, LEADING, ROLLUP
from stoker.bench.rules.mlperf.tables import WHATIF
from stoker.core.errors import CorruptError, NotFoundError
from stoker.core.files import write_atomic

CSV_FILE: Final = "results.csv"
IDS_FILE: Final = "public_ids.json"
_IDS_BYTES_MAX: Final = 64 << 20
_FORMULA_SIGNS: Final = ("=", "+", "-", "@", "\t", "\r")


class PublicId(msgspec.Struct):
    """What an ID was given to, and whether that was withdrawn."""

    key: str
    withdrawn: bool = False


Ids = dict[str, PublicId]


def write_rollups(results_dir: Path, system: str = "") -> list[Path]:
    """Write all rollups of a tree and return their paths; with `system` only that one's models get theirs anew.

    The organisations' and the global ones always hold every row. Raises UsageError where there is no folder, and
    CorruptError for a public_ids.json that cannot be read: IDs that were given are never given anew.
    """
    with _alone(results_dir):
        return _write_all(results_dir, read_tree(results_dir), system)


@contextmanager
def _alone(results_dir: Path) -> Iterator[None]:
    """Keep other processes from giving IDs meanwhile, where the file system has locks."""
    descriptor = os.open(results_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if results_dir.is_dir() else None
    try:
        if descriptor is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _write_all(results_dir: Path, tree: Tree, system: str) -> list[Path]:
    rows = rows_of(tree)
    if system and not any(each.name == system for each in tree.systems):
        known = ", ".join(sorted({each.name for each in tree.systems})) or "none"
        raise NotFoundError("no system of this name has results", where=system, expected=known)
    ids = _numbered(results_dir, tree, rows) if tree.kind == PACKAGE else {}
    paths = []
    for series in tree.series:
        if series.runs and system in ("", series.system):
            mine = [row for row in rows if row.folder == series.path]
            paths += _write(results_dir / series.path, mine)
    if tree.kind == PACKAGE:
        for submitter in tree.submitters:
            theirs = [row for row in rows if (row.division, row.org) == (submitter.division, submitter.name)]
            paths += _write(results_dir / submitter.path, theirs)
        paths += _write(results_dir, [row for row in rows if row.division != WHATIF], blanks=_withdrawn(ids, rows))
    return paths


def withdraw(results_dir: Path, public_id: str) -> None:
    """Mark a row as withdrawn: it keeps its ID and is blank from the next rollup on. Raises NotFoundError."""
    with _alone(results_dir):
        ids = read_ids(results_dir)
        if public_id not in ids:
            known = ", ".join(ids) or "none was given"
            raise NotFoundError("no row has this Public ID", where=public_id, expected=known)
        ids[public_id].withdrawn = True
        _save_ids(results_dir, ids)


def read_ids(results_dir: Path) -> Ids:
    """Return the Public IDs that were given. Raises CorruptError for a file that does not hold them."""
    path = results_dir / IDS_FILE
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        data = file.read(_IDS_BYTES_MAX + 1)
    try:
        found = msgspec.json.decode(data, type=Ids)
        for name in found:
            _number(name)
    except (msgspec.DecodeError, ValueError) as error:
        raise CorruptError("Public IDs cannot be read", where=str(path), got=str(error), remedy="restore it") from error
    return found


def _save_ids(results_dir: Path, ids: Ids) -> None:
    data = msgspec.json.format(msgspec.json.encode(ids), indent=1)
    write_atomic(results_dir / IDS_FILE, data + b"\n")


def _number(name: str) -> int:
    """Return the number of an ID such as v3.0-0012. Raises ValueError."""
    return int(name.rpartition("-")[2])


def _numbered(results_dir: Path, tree: Tree, rows: Iterable[Row]) -> Ids:
    """Give every row that is submitted its ID: the one it had, else the next. Return all IDs."""
    ids = read_ids(results_dir)
    by_key = {entry.key: name for name, entry in ids.items()}
    following = max((_number(name) for name in ids), default=0) + 1
    before = len(ids)
    for row in sorted((row for row in rows if row.division != WHATIF), key=lambda row: row.key):
        name = by_key.get(row.key, "")
        if not name:
            name = f"v{tree.edition}-{following:04d}"
            following += 1
            ids[name] = PublicId(row.key)
        row.columns["Public ID"] = name
        if ids[name].withdrawn:
            row.columns = {"Public ID": name}
            row.notes = ["withdrawn"]
    if len(ids) > before:
        _save_ids(results_dir, ids)
    return ids


def _withdrawn(ids: Ids, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return blank rows for what was withdrawn and is no longer in the tree."""
    there = {row.columns.get("Public ID") for row in rows}
    gone = [name for name, entry in ids.items() if entry.withdrawn and name not in there]
    return [{**dict.fromkeys(LEADING), "Public ID": name, "notes": ["withdrawn"]} for name in gone]


def _write(folder: Path, rows: Sequence[Row], *, blanks: Sequence[dict[str, Any]] = ()) -> list[Path]:
    documents = [row.document() for row in rows] + list(blanks)
    families = [family for family in FAMILY_COLUMNS if any(row.family == family for row in rows)]
    columns = list(dict.fromkeys([*LEADING, *(name for family in families for name in FAMILY_COLUMNS[family])]))
    paths = [folder / ROLLUP, folder / CSV_FILE]
    write_atomic(paths[0], msgspec.json.format(msgspec.json.encode(_utf8(documents)), indent=1) + b"\n")
    write_atomic(paths[1], _csv_text(columns, documents).encode("utf-8", "backslashreplace"))
    return paths


def _utf8(value: Any) -> Any:
    """Return the documents with names that are not UTF-8 made so: JSON cannot hold them."""
    if isinstance(value, list):
        return [_utf8(item) for item in value]
    if isinstance(value, dict):
        return {key: _utf8(item) for key, item in value.items()}
    return value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value


def _csv_text(columns: Sequence[str], documents: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for document in documents:
        writer.writerow([_cell(document.get(name)) for name in columns])
    return out.getvalue()


def _cell(value: Any) -> str:
    """Return a cell: numbers to two decimals, whole ones as they are; a text never begins like a formula."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_SIGNS) else text
