"""Where what lies in a tree of MLPerf Storage results: divisions, submitters, systems, series, leaves.

    3.0      {closed,open}/<org>/{systems,results}/…   results/<system>/training/<model>/{datasize,datagen,run}/<time>
                                                       results/<system>/checkpointing/<model>/<time>
                                                       results/<system>/vector_database/[<engine>/]<index>/<command>/<time>
                                                       results/<system>/kv_cache/<model>/<command>/<time>
    2.0      the same without engines; also the tool's own results folder: training/…, checkpointing/… at its root
    1.0      {Closed,Open}/<org>/results/…/mlperf_storage_report.json beside …/run<n>/[<host>/]: a result is where its
             report lies, for submitters named and nested their folders as they liked
    a leaf   one folder of a run by itself

A *series* is the leaves of one result: a model's (an index's) folder. Folders that lie where the layout has none are
kept as *strays*; nothing is dropped silently.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import Files, Folder, words
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, WHATIF
from stoker.core.errors import UsageError

PACKAGE: Final = "package"
RESULTS: Final = "results folder"
LEAF: Final = "leaf"
TIME: Final = re.compile(r"\d{8}_\d{6}")
FAMILY_FOLDERS: Final = ("training", "checkpointing", "vector_database", "kv_cache")
PHASES: Final = ("datasize", "datagen", "run")
RUN: Final = "run"
REPORT_V1: Final = "mlperf_storage_report.json"
_V1_SERIES: Final = re.compile(r"(unet3d|resnet(?:50)?|cosmoflow)[-_]([a-z]\d+)")
_LEVELS: Final = {"training": 2, "checkpointing": 1, "kv_cache": 2}
_DIVISIONS: Final = (CLOSED, OPEN, WHATIF)


@dataclass
class Series:
    """The leaves of one result, in order of their folders' names."""

    folder: Folder
    division: str
    submitter: str
    system: str
    family: str
    model: str
    engine: str = ""
    accelerator: str = ""
    leaves: list[Leaf] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Return the path of the folder."""
        return self.folder.path

    def phase(self, command: str) -> list[Leaf]:
        """Return the leaves of a command."""
        return [leaf for leaf in self.leaves if leaf.command == command]

    @property
    def runs(self) -> list[Leaf]:
        """Return the leaves of runs."""
        return self.phase(RUN)


@dataclass
class System:
    """A system under a submitter: its results' folder, its series."""

    folder: Folder
    division: str
    submitter: str
    name: str
    series: list[Series] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Return the path of the folder."""
        return self.folder.path


@dataclass
class Submitter:
    """An organisation's folder in a division."""

    folder: Folder
    division: str
    name: str
    systems: list[System] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Return the path of the folder."""
        return self.folder.path


@dataclass
class Tree:
    """A tree that was read: what it is, the edition it is of, and all that was found in it."""

    files: Files
    kind: str
    edition: str
    division: str = ""  # asked for: other divisions are left out
    only: tuple[str, ...] = ()  # asked for: other submitters are left out
    divisions: list[Folder] = field(default_factory=list)
    submitters: list[Submitter] = field(default_factory=list)
    loose: list[System] = field(default_factory=list)  # the tool's results folder, or a leaf: no submitter
    strays: list[tuple[str, Folder, str]] = field(default_factory=list)  # (division, folder, why)

    @property
    def path(self) -> str:
        """Return the path of the root, which all paths are relative to."""
        return ""

    @property
    def top(self) -> Folder:
        """Return the root's folder."""
        return self.files.top

    @property
    def organisations(self) -> set[str]:
        """Return the names of all submitters' folders, those that are left out, too."""
        return {below.name for folder in self.divisions for below in folder.visible()}

    def leaves_out(self, path: str) -> bool:
        """Tell whether a path is of a submitter who is left out."""
        division, _, below = path.partition("/")
        named = below.partition("/")[0]
        return bool(self.only) and division.lower() in _DIVISIONS and bool(named) and named not in self.only

    @property
    def systems(self) -> list[System]:
        """Return all systems."""
        return [system for submitter in self.submitters for system in submitter.systems] + self.loose

    @property
    def series(self) -> list[Series]:
        """Return all series."""
        return [series for system in self.systems for series in system.series]

    @property
    def leaves(self) -> list[Leaf]:
        """Return all leaves."""
        return [leaf for series in self.series for leaf in series.leaves]


def read_tree(root: Path, *, edition: str = "", division: str = "", submitters: Sequence[str] = ()) -> Tree:
    """Return the tree under `root`; the edition is told by its layout when it is not given.

    `submitters` leaves all others out. Raises UsageError when `root` is no folder, or has none of a submitter. Whatever
    lies below it is data.
    """
    if not root.is_dir():
        raise UsageError("no folder of results", where=str(root), expected="the root of a tree, or a leaf of a run")
    files = Files(root)
    kind = _kind(files.top)
    tree = Tree(files, kind, edition or _edition(files, kind), division, tuple(submitters))
    if kind == LEAF:
        tree.loose.append(_lone_leaf(tree))
    elif kind == RESULTS:
        system = System(files.top, division, "", "")
        _read_families(tree, system)
        tree.loose.append(system)
    else:
        _read_package(tree)
    _refuse_unknown(tree)
    return tree


def _refuse_unknown(tree: Tree) -> None:
    for name in tree.only:
        if name not in tree.organisations:
            known = ", ".join(sorted(tree.organisations)) or "none"
            raise UsageError("no such submitter in the tree", where=name, expected=f"of those there: {known}")


def _kind(top: Folder) -> str:
    if "summary.json" in top.files or any(name.endswith("_metadata.json") for name in top.files):
        return LEAF
    if any(name.lower() in _DIVISIONS for name in top.folders):
        return PACKAGE
    return RESULTS if any(name in FAMILY_FOLDERS for name in top.folders) else PACKAGE


def _edition(files: Files, kind: str) -> str:
    """Return the edition the layout is of: provenance and sentinel came with 3.0, reports per series went with 1.0."""
    if "mlperf-results.yaml" in files.top.files or "code-images" in files.top.folders:
        return "3.0"
    names = {name for folder in files.top.walk() for name in folder.files}
    if names & {"provenance.json", "fs_separation.json", ".mlps-code-image", "submission.yaml"}:
        return "3.0"
    if REPORT_V1 in names:
        return "1.0"
    stamped = any(name.endswith("_metadata.json") for name in names)
    return "2.0" if stamped or (kind == RESULTS and names) else "3.0"


def _read_package(tree: Tree) -> None:
    for name, folder in sorted(tree.top.folders.items()):
        division = name.lower()
        if division not in _DIVISIONS or tree.division not in ("", division):
            continue
        tree.divisions.append(folder)
        for below in folder.visible():
            if tree.leaves_out(below.path):
                continue
            submitter = Submitter(below, division, below.name)
            tree.submitters.append(submitter)
            _read_submitter(tree, submitter)


def _read_submitter(tree: Tree, submitter: Submitter) -> None:
    results = submitter.folder.find("results")
    for folder in results.visible() if results is not None else []:
        system = System(folder, submitter.division, submitter.name, folder.name)
        submitter.systems.append(system)
        if tree.edition == "1.0":
            _read_v1(tree, system)
        else:
            _read_families(tree, system)


def _lone_leaf(tree: Tree) -> System:
    """Return a system of one series of one leaf; what it is, its metadata tell."""
    leaf = Leaf.alone(tree.files, tree.division)
    series = Series(tree.top, leaf.division, "", "", leaf.family, leaf.model, leaves=[leaf])
    return System(tree.top, leaf.division, "", "", [series])


def _read_families(tree: Tree, system: System) -> None:
    for folder in system.folder.visible():
        if folder.name not in FAMILY_FOLDERS:
            continue  # rule 2.1.10 tells of it
        if folder.name == "vector_database":
            _read_vectors(tree, system, folder, [])
        else:
            _read_models(tree, system, folder)


def _read_models(tree: Tree, system: System, family: Folder) -> None:
    for folder in family.visible():
        series = Series(folder, system.division, system.submitter, system.name, family.name, folder.name)
        if TIME.fullmatch(folder.name):
            _stray(tree, system, folder, "a run that lies above a model's folder")
            continue
        system.series.append(series)
        if _LEVELS[family.name] == 1:
            _read_times(tree, series, folder, RUN)
            continue
        for phase in folder.visible():
            if TIME.fullmatch(phase.name):
                _stray(tree, system, phase, "a run that lies above its phase's folder")
            else:
                _read_times(tree, series, phase, phase.name)


def _read_vectors(tree: Tree, system: System, folder: Folder, above: list[str]) -> None:
    """Read `[<engine>/]<index>/<command>/<time>`: engine levels are missing in some trees."""
    phases = [below for below in folder.visible() if below.name in PHASES]
    if phases:
        index = above[-1] if above else ""
        engine = above[-2] if len(above) > 1 else ""
        series = Series(folder, system.division, system.submitter, system.name, "vector_database", index, engine)
        system.series.append(series)
        for phase in phases:
            _read_times(tree, series, phase, phase.name)
    for below in folder.visible():
        if below.name in PHASES:
            continue
        if phases or len(above) >= 2 or TIME.fullmatch(below.name):
            _stray(tree, system, below, "a folder where an engine, an index or a phase belongs")
        else:
            _read_vectors(tree, system, below, [*above, below.name])


def _read_times(tree: Tree, series: Series, phase: Folder, command: str) -> None:
    for folder in phase.visible():
        if not TIME.fullmatch(folder.name):
            why = "a folder where only times (YYYYMMDD_HHMMSS) belong"
            tree.strays.append((series.division, folder, why))
            continue
        series.leaves.append(
            Leaf(tree.files, folder, series.division, series.family, series.model, command, folder.name)
        )


def _read_v1(tree: Tree, system: System) -> None:
    """Read the results of a system of 1.0: wherever a report lies there is one, and its runs lie below it."""
    reports = [folder for folder in system.folder.walk() if REPORT_V1 in folder.files]
    for folder in reports or system.folder.visible() or [system.folder]:
        series = _v1_series(tree, system, folder)
        for run, hosts in _v1_runs(folder).items():
            leaf = Leaf(tree.files, hosts[0], series.division, "training", series.model, RUN, run)
            leaf.hosts_seen = len(hosts)
            series.leaves.append(leaf)
        if series.leaves or folder in reports:
            system.series.append(series)


def _v1_runs(folder: Folder) -> dict[str, list[Folder]]:
    """Return the hosts' folders of each run: below the folders that all runs share, the first level is the run."""
    hosts = [below for below in folder.walk() if "summary.json" in below.files and below is not folder]
    parts = [below.path.removeprefix(f"{folder.path}/").split("/") for below in hosts]
    shared = 0
    while len(hosts) > 1 and len({tuple(each[: shared + 1]) for each in parts}) == 1:
        shared += 1
    runs: dict[str, list[Folder]] = {}
    for host, each in zip(hosts, parts, strict=True):
        runs.setdefault("/".join(each[: shared + 1]), []).append(host)
    return runs


def _v1_series(tree: Tree, system: System, folder: Folder) -> Series:
    """Return the result, named by its report, else by the folder or the one above it."""
    report = tree.files.json(folder.below(REPORT_V1)) if REPORT_V1 in folder.files else None
    named = next((found for part in reversed(folder.path.split("/")) if (found := _V1_SERIES.search(part))), None)
    model = words(report, "overall.model") or (named[1] if named else folder.name)
    accelerator = words(report, "overall.accelerator") or (named[2] if named else "")
    model = {"resnet": "resnet50"}.get(model, model)
    series = Series(folder, system.division, system.submitter, system.name, "training", model)
    series.accelerator = accelerator.lower()
    return series


def _stray(tree: Tree, system: System, folder: Folder, why: str) -> None:
    tree.strays.append((system.division, folder, why))
