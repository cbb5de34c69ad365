"""The runs of a results directory: those of the journal, and the leaves that other tools left, as one list.

The journal tells what became of a run; a leaf that it does not know is read as the reference tool wrote it. Trees of
editions 1.0, 2.0 and 3.0 are listed alike, without being initialised.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.layout import TIME, read_tree
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import Folder, dig, number, whole, words
from stoker.bench.run.mlperf.journal import (
    COMPLETE,
    FAILED,
    INCOMPLETE,
    JournalRun,
    read_history,
    read_runs,
)
from stoker.bench.run.mlperf.results_dir import SENTINEL, family_folder, open_results, results_path
from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.registry import nearest

STATES: Final = (COMPLETE, FAILED, INCOMPLETE)
_STAMP: Final = "%Y%m%d_%H%M%S"
_METRICS_MAX: Final = 100


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A run: what it was, where its leaf lies (relative to the results directory), and what became of it.

    `id` is the journal's, empty for leaves it does not know. `status` is complete, failed, incomplete, running or
    unknown (begun on another host, no end told). `started` is local time, ISO 8601; `leaf_exists` tells whether the
    leaf is still there.
    """

    id: str
    division: str
    system: str
    family: str
    model: str
    command: str
    leaf: str
    leaf_exists: bool
    started: str
    status: str
    exit_code: int | None
    seconds: float | None
    host: str = ""

    @property
    def name(self) -> str:
        """Return what the run is called by: its id, or where its leaf lies."""
        return self.id or self.leaf

    @property
    def series(self) -> tuple[str, ...]:
        """Return what runs that may replace each other have in common: all of the leaf's path but its time."""
        above, _, name = self.leaf.rpartition("/")
        return (above,) if TIME.fullmatch(name) else (self.division, self.system, self.family, self.model)


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A run in full: its entry, its command line without secrets, its files, and the figures of its summary."""

    run: RunEntry
    words: tuple[str, ...]
    cwd: str
    executed_command: str
    files: int
    bytes: int
    metrics: dict[str, Any]


def find_root(flag: str | None, environment: Mapping[str, str]) -> Path:
    """Return the root of the tree to look at: an initialised directory, or one with leaves of another tool.

    Raises UsageError when none is told, ConfigurationError when it is neither (both E101).
    """
    root = Path(results_path(flag, environment))
    if not (root / SENTINEL).exists() and root.is_dir() and read_tree(root).leaves:
        return root.resolve()
    return open_results(str(root), environment).root


# -- listing ---------------------------------------------------------------------------------------------------------


def list_runs(root: Path) -> list[RunEntry]:
    """Return all runs under `root`, the oldest first. Raises UsageError when `root` is no folder."""
    tree = read_tree(root)
    journal = {run: told for run, told in read_runs(root).items() if not told.removed}
    leaves = {leaf.path: leaf for leaf in tree.leaves if leaf.path}
    told_of = {told.begun.leaf for told in journal.values()}
    entries = [_from_journal(told, tree.top) for told in journal.values()]
    systems = {leaf.path: system.name for system in tree.systems for series in system.series for leaf in series.leaves}
    entries += [_from_leaf(leaf, systems[path]) for path, leaf in leaves.items() if path not in told_of]
    return sorted(entries, key=lambda each: (each.started, int(each.id or 0), each.leaf))


def _from_journal(told: JournalRun, top: Folder) -> RunEntry:
    begun = told.begun
    return RunEntry(
        id=begun.id,
        division=begun.division,
        system=begun.system,
        family=_folder_or_so(begun.family),
        model=begun.model,
        command=begun.command,
        leaf=begun.leaf,
        leaf_exists=top.find(*begun.leaf.split("/")) is not None,
        started=_started(begun.leaf.rpartition("/")[2]),
        status=told.state(),
        exit_code=told.exit_code,
        seconds=told.seconds,
        host=begun.process.host,
    )


def _from_leaf(leaf: Leaf, system: str) -> RunEntry:
    code = whole(leaf.metadata, "exit_status")
    told = _started(leaf.time) or _started_by(leaf)
    return RunEntry(
        id="",
        division=leaf.division,
        system=system,
        family=leaf.family,
        model=leaf.model,
        command=leaf.command,
        leaf=leaf.path,
        leaf_exists=True,
        started=told,
        status=_state(leaf, code),
        exit_code=code,
        seconds=number(leaf.metadata, "runtime"),
    )


def _state(leaf: Leaf, code: int | None) -> str:
    """Return what became of a leaf of another tool: by its exit status, else by whether a run's summary is there."""
    if code is not None:
        return COMPLETE if code == 0 else FAILED
    done = leaf.has("summary.json") or (leaf.command != "run" and bool(leaf.metadata_name))
    return COMPLETE if done else INCOMPLETE


def _started(stamp: str) -> str:
    """Return a leaf's name as local time, nothing when it is none."""
    try:
        return datetime.strptime(stamp, _STAMP).isoformat() if TIME.fullmatch(stamp) else ""
    except ValueError:
        return ""


def _started_by(leaf: Leaf) -> str:
    text = words(leaf.metadata, "invocation_start_time") or words(leaf.summary, "start") or ""
    try:
        return datetime.fromisoformat(text).replace(microsecond=0, tzinfo=None).isoformat()
    except ValueError:
        return ""


def chosen(entries: Sequence[RunEntry], *, benchmark: str = "", **wanted: str) -> list[RunEntry]:
    """Return the runs of a workload, by either of its names, whose fields are as `wanted`; empty stands for any."""
    family = family_folder(benchmark) if benchmark else ""
    told = {name: value for name, value in {**wanted, "family": family}.items() if value}
    return [each for each in entries if all(getattr(each, name) == value for name, value in told.items())]


def _folder_or_so(family: str) -> str:
    """Return a workload's folder by any of its names; a name that is none stays as it is."""
    try:
        return family_folder(family)
    except UsageError:
        return family


# -- one run ---------------------------------------------------------------------------------------------------------


def named(entries: Sequence[RunEntry], text: str) -> RunEntry:
    """Return the run that an id, a leaf's path, or the end of one names. Raises UnknownNameError."""
    wanted = text.strip("/").removeprefix("./")
    exact = [each for each in entries if wanted and wanted in (each.id, each.leaf)]
    found = exact or [each for each in entries if wanted and f"/{each.leaf}".endswith(f"/{wanted}")]
    if len(found) > 1:
        names = ", ".join(each.name for each in found[:4])
        raise UnknownNameError("several runs end so", where=text, got=names, remedy="name one by its id or its path")
    if not found:
        close = nearest(wanted, [each.name for each in entries])
        raise UnknownNameError(
            "no run of this name",
            where=text,
            expected="an id, or the path of a leaf",
            remedy=f"did you mean {close!r}?" if close else "see `stoker mlperf runs list`",
        )
    return found[0]


def show(root: Path, text: str) -> Shown:
    """Return all that is known of a run. Raises UnknownNameError."""
    tree = read_tree(root)
    run = named(list_runs(root), text)
    line = next((each for each in read_history(root) if each.id == run.id), None)
    folder = tree.top.find(*run.leaf.split("/"))
    sizes = [size for below in folder.walk() for size in below.files.values()] if folder is not None else []
    leaf = next((each for each in tree.leaves if each.path == run.leaf), None)
    return Shown(
        run=run,
        words=line.words if line is not None else (),
        cwd=line.cwd if line is not None else "",
        executed_command=(words(leaf.metadata, "executed_command") or "") if leaf is not None else "",
        files=len(sizes),
        bytes=sum(sizes),
        metrics=_metrics(leaf),
    )


def _metrics(leaf: Leaf | None) -> dict[str, Any]:
    """Return the plain figures of a leaf's summary."""
    found = dig(leaf.summary, ["metric"]) if leaf is not None else None
    if not isinstance(found, dict):
        return {}
    plain = {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
    return dict(list(plain.items())[:_METRICS_MAX])
