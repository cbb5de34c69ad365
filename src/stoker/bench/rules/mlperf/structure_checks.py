"""What lies where: the root, divisions, submitters, systems, models, phases, strays."""

import re
from collections.abc import Iterable
from typing import Final

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, Unknown, excused, missing
from stoker.bench.rules.mlperf.layout import FAMILY_FOLDERS, PACKAGE, PHASES, Series, Submitter, System, Tree
from stoker.bench.rules.mlperf.provenance_checks import is_pool
from stoker.bench.rules.mlperf.reading import NAME, number, whole, words
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, WHATIF, editions, models, training_models

SENTINEL: Final = "mlperf-results.yaml"
SENTINEL_VERSIONS: Final = (1, 2)
MEMORY_TOLERANCE: Final = 0.05
_TOP_FOLDERS: Final = ("closed", "open", "code-images")
_TOP_FILES: Final = re.compile(
    r"mlperf-results\.yaml|results\.(json|csv)|summary\.csv|public_ids\.json|.*\.md|LICENSE.*"
)
_SUBMITTER_FILES: Final = re.compile(r"submission\.yaml|results\.(json|csv)|.*\.md|LICENSE.*")
_DIVISION_FILES: Final = re.compile(r"results\.(json|csv)|.*\.md")


def _no_package(tree: Tree) -> Unknown:
    return excused(f"the tree is a {tree.kind}, not a package with divisions", "")


def sentinel(tree: Tree, _: Context) -> Iterable[Said]:
    """The root carries the mark of the tool's init command."""
    if tree.kind != PACKAGE:
        yield _no_package(tree)
        return
    if SENTINEL not in tree.top.files and len(tree.organisations) > 1:
        yield excused("trees of several submitters were merged by hand and have no mark of their own", "")
        return
    if SENTINEL not in tree.top.files:
        yield Fault(f"{SENTINEL} is missing", "the mark of the tool's init command", SENTINEL)
        return
    found = tree.files.yaml(SENTINEL)
    version = whole(found, "mlperf_results_version")
    if found is None:
        yield missing("the version of the results folder", SENTINEL)
    elif version not in SENTINEL_VERSIONS:
        yield Fault(f"version {version}", "1 or 2", SENTINEL, "mlperf_results_version")


def submitter_names(tree: Tree, _: Context) -> Iterable[Said]:
    """Folders of submitters are legal names; of a single one, the name that init was given."""
    if tree.kind != PACKAGE:
        yield _no_package(tree)
        return
    named = tree.files.yaml(SENTINEL) if SENTINEL in tree.top.files else None
    org = words(named, "orgname")
    merged = len(tree.organisations) > 1
    for submitter in tree.submitters:
        if not merged and org is not None and submitter.name != legal_name(org):
            yield Fault(f"folder {submitter.name}", legal_name(org), submitter.path, f"{SENTINEL} orgname")


def legal_name(org: str) -> str:
    """Return the folder's name of an organisation: each illegal character becomes one dash."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", org)


def top_level(tree: Tree, _: Context) -> Iterable[Said]:
    """Only closed, open and code-images lie at the root."""
    if tree.kind != PACKAGE:
        yield _no_package(tree)
        return
    expected = "closed, open and code-images only"
    for folder in tree.top.visible():
        legal = folder.name if tree.edition == "3.0" else folder.name.lower()
        if legal not in _TOP_FOLDERS and not is_pool(folder):
            yield Fault(f"folder {folder.name}", expected, folder.path)
    for name in sorted(tree.top.files):
        if not name.startswith(".") and not _TOP_FILES.fullmatch(name):
            yield Fault(f"file {name}", expected, name)


def divisions_hold_submitters(tree: Tree, _: Context) -> Iterable[Said]:
    """Each division's folder holds submitters and no loose files."""
    if tree.kind != PACKAGE:
        yield _no_package(tree)
        return
    for folder in (each for each in tree.divisions if each.name.lower() != WHATIF):
        if not folder.visible():
            yield Fault("no submitter's folder", "one folder a submitter", folder.path)
        for name in sorted(folder.files):
            if not name.startswith(".") and not _DIVISION_FILES.fullmatch(name):
                yield Fault(f"file {name}", "one folder a submitter, and rollups", folder.below(name))


def submitter_folders(submitter: Submitter, context: Context) -> Iterable[Said]:
    """Results and systems (before 3.0: code), nothing else."""
    edition = editions()[context.tree.edition]
    expected = f"exactly {' and '.join(edition.submitter_folders)}"
    found = [folder.name for folder in submitter.folder.visible()]
    for name in edition.submitter_folders:
        if name not in found:
            yield Fault(f"no folder {name}", expected, submitter.folder.below(name))
    for name in found:
        legacy = re.fullmatch(r"code-[0-9a-f]{8}", name)  # CHECK-04 tells of the older pool
        if name not in (*edition.submitter_folders, *edition.submitter_folders_optional) and not legacy:
            yield Fault(f"folder {name}", expected, submitter.folder.below(name))
    for name in sorted(submitter.folder.files):
        if not name.startswith(".") and not _SUBMITTER_FILES.fullmatch(name):
            yield Fault(f"file {name}", expected, submitter.folder.below(name))


def systems_agree(submitter: Submitter, context: Context) -> Iterable[Said]:
    """Systems with results are the systems described."""
    folder = submitter.folder.find("systems")
    if folder is None or submitter.folder.find("results") is None:
        return  # 2.1.5 tells of it
    endings = (".yaml",) if context.tree.edition == "3.0" else (".yaml", ".yml", ".json")
    described = {name.rpartition(".")[0] for name in folder.files if name.endswith(endings) and name[0] != "."}
    measured = {system.name for system in submitter.systems}
    for name in sorted(measured - described):
        yield Fault(f"system {name} has results and no description", "both", folder.path)
    for name in sorted(described - measured):
        yield Fault(f"system {name} is described and has no results", "both", submitter.folder.below("results"))


def one_configuration(system: System, _: Context) -> Iterable[Said]:
    """A host is the same machine in all leaves of a system."""
    seen: dict[str, tuple[float, float, str]] = {}
    for series in system.series:
        for leaf in series.leaves:
            for node in leaf.nodes:
                name, memory = words(node, "hostname"), number(node, "memory.total")
                cores = number(node, "cpu.num_logical_cores")
                if name is None or memory is None or cores is None:
                    continue
                cores_before, memory_before, where = seen.setdefault(name, (cores, memory, leaf.path))
                if cores != cores_before or abs(memory - memory_before) > MEMORY_TOLERANCE * memory_before:
                    told = f"{name}: {cores:g} CPUs and {memory:,.0f} bytes"
                    before = f"{cores_before:g} CPUs and {memory_before:,.0f} bytes, as in {where}"
                    yield Fault(told, before, leaf.folder.below(leaf.metadata_name), "system_info.hosts")
    if not seen:
        yield missing("any host's cores and memory", system.path)


def categories(system: System, context: Context) -> Iterable[Said]:
    """Only workloads lie under a system."""
    if context.tree.kind != PACKAGE:
        return
    for folder in system.folder.visible():
        if folder.name not in FAMILY_FOLDERS:
            yield Fault(f"folder {folder.name}", ", ".join(FAMILY_FOLDERS), folder.path)


def training_model(series: Series, context: Context) -> Iterable[Said]:
    """Model and accelerator are the edition's."""
    division = series.division if series.division in (CLOSED, OPEN, WHATIF) else CLOSED
    legal = training_models(context.tree.edition, division)
    if not series.model:
        yield missing("the model", series.path)
        return
    if series.model not in legal:
        yield Fault(f"model {series.model}", ", ".join(legal), series.path)
        return
    kinds = {series.accelerator} | {leaf.accelerator for leaf in series.runs}
    for kind in sorted(kinds - {""}):
        if kind not in legal[series.model]:
            yield Fault(f"accelerator {kind}", ", ".join(legal[series.model]), series.path, "accelerator")
    if kinds == {""}:
        yield missing("the accelerator", series.path)


def checkpoint_model(series: Series, _: Context) -> Iterable[Said]:
    """One of the four models."""
    legal = models().checkpointing
    if series.model not in legal:
        yield Fault(f"model {series.model}", ", ".join(legal), series.path)


def phases(series: Series, context: Context) -> Iterable[Said]:
    """All phases are there, and nothing but phases."""
    if context.tree.kind != PACKAGE:
        return
    found = [folder.name for folder in series.folder.visible()]
    needed = PHASES if context.tree.edition == "3.0" else PHASES[-1:]
    for name in needed:
        if name not in found:
            yield Fault(f"no folder {name}", ", ".join(needed), series.folder.below(name))
    for name in found:
        if name not in PHASES and not re.fullmatch(r"\d{8}_\d{6}", name):
            yield Fault(f"folder {name}", ", ".join(PHASES), series.folder.below(name))


def _strays(tree: Tree, division: str) -> Iterable[Said]:
    for where, folder, why in tree.strays:
        if (where or CLOSED) == division:
            yield Fault(why, "the layout's folders only", folder.path)


def closed_diagram(tree: Tree, _: Context) -> Iterable[Said]:
    """No folder of closed lies where the layout has none."""
    yield from _strays(tree, CLOSED)


def open_diagram(tree: Tree, _: Context) -> Iterable[Said]:
    """No folder of open lies where the layout has none."""
    yield from _strays(tree, OPEN)


def has_results(tree: Tree, _: Context) -> Iterable[Said]:
    """There is a leaf to judge."""
    if not tree.leaves:
        yield Fault("no leaf of a run was found", "at least one", "")
    elif tree.division != WHATIF and all(leaf.division == WHATIF for leaf in tree.leaves):
        yield Fault("all results are of whatif", "results of closed or open: whatif is never submitted", "")


def _file_problems(rule: str, tree: Tree) -> Iterable[Said]:
    for problem in tree.files.problems:
        if problem.rule == rule and not tree.leaves_out(problem.path):
            yield Fault(problem.observed, "", problem.path)


def plain_entries(tree: Tree, _: Context) -> Iterable[Said]:
    """Nothing but plain files and folders."""
    yield from _file_problems("FILE-01", tree)


def readable_files(tree: Tree, _: Context) -> Iterable[Said]:
    """Every document that was needed could be read."""
    yield from _file_problems("FILE-02", tree)


def bounded_tree(tree: Tree, _: Context) -> Iterable[Said]:
    """The tree keeps its bounds."""
    yield from _file_problems("FILE-03", tree)


def legal_names(tree: Tree, _: Context) -> Iterable[Said]:
    """Names of the layout's folders are legal, and all names are text."""
    yield from _file_problems("FILE-04", tree)
    if tree.edition != "3.0":
        return  # names were free before
    for submitter in tree.submitters:
        for folder in (submitter.folder, *(system.folder for system in submitter.systems)):
            yield from _illegal(folder.path)
    for series in tree.series:
        yield from _illegal(series.path)


def _illegal(path: str) -> Iterable[Said]:
    name = path.rpartition("/")[2]
    if name and not NAME.fullmatch(name) and name.isprintable():
        yield Fault("a name with other characters", "letters, digits, '.', '_' and '-'", path)


CHECKS = {
    "1.1": Check("tree", sentinel),
    "2.1.1": Check("tree", submitter_names),
    "2.1.2": Check("tree", top_level),
    "2.1.3": Check("tree", open_diagram),
    "2.1.4": Check("tree", divisions_hold_submitters),
    "2.1.5.a": Check("submitter", submitter_folders),
    "2.1.5.b": Check("submitter", submitter_folders),
    "2.1.8": Check("submitter", systems_agree),
    "2.1.9": Check("system", one_configuration),
    "2.1.10": Check("system", categories),
    "2.1.11": Check("series", training_model),
    "2.1.12": Check("series", phases),
    "2.1.21": Check("series", checkpoint_model),
    "2.1.27": Check("tree", closed_diagram),
    "TREE-01": Check("tree", has_results),
    "FILE-01": Check("tree", plain_entries),
    "FILE-03": Check("tree", bounded_tree),
    "FILE-04": Check("tree", legal_names),
    "FILE-02": Check("tree", readable_files),
}
