"""`reports reportgen`: the rollups of a tree, and the manifests of its submitters."""

from pathlib import Path
from typing import Final

from stoker.bench.report.submission.manifest import write_manifest
from stoker.bench.report.submission.rollups import write_rollups
from stoker.bench.rules.mlperf.layout import PACKAGE, Tree, read_tree
from stoker.bench.rules.mlperf.tables import WHATIF
from stoker.bench.run.mlperf.results_dir import SENTINEL
from stoker.core.errors import NotFoundError, StokerError

_EDITION: Final = "3.0"


def generate(root: Path, system: str = "") -> list[Path]:
    """Write what is rolled up from the runs under `root`, and return the files.

    Manifests are of edition 3.0 and of what is submitted: trees of earlier ones, those that nobody initialised, and
    what was run for whatif get rollups alone. Raises StokerError where no run is, NotFoundError for a system without
    results.
    """
    tree = _tree_with_runs(root)
    written = write_rollups(root, system)
    if tree.kind == PACKAGE and tree.edition == _EDITION and SENTINEL in tree.top.files:
        submitted = [
            each for each in tree.submitters if each.division != WHATIF and any(s.series for s in each.systems)
        ]
        written += [write_manifest(root / each.path) for each in submitted]
    return written


def foreseen(root: Path, system: str = "") -> list[str]:
    """Return the folders of the models, relative to `root`, whose rollups would be written. Raises as `generate`."""
    tree = _tree_with_runs(root)
    found = [series.path for series in tree.series if series.runs and system in ("", series.system)]
    if not found:
        raise NotFoundError("no system of this name has results", where=system)
    return found


def _tree_with_runs(root: Path) -> Tree:
    tree = read_tree(root)
    if not any(series.runs for series in tree.series):
        raise StokerError(
            "nothing to report: no leaf of a run was found",
            where=str(root),
            remedy="a run leaves one: see `stoker mlperf runs list` for what is there",
        )
    return tree
