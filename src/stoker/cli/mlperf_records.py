"""The commands of `stoker mlperf` that keep and judge records; the tree of commands mounts `COMMANDS`."""

import os
from pathlib import Path
from typing import Final

import click

from stoker.cli.groups import OrderedGroup
from stoker.cli.mlperf_common import (
    HELP,
    RecordsCommand,
    as_json_option,
    dry_run_option,
    results_dir_option,
    tell_foreseen,
)
from stoker.cli.mlperf_history import history
from stoker.cli.mlperf_lockfile import lockfile
from stoker.cli.mlperf_runs import runs
from stoker.cli.mlperf_validate import rules_coverage, validate
from stoker.cli.screen import emit_json, emit_pairs, emit_text, harmless, warn
from stoker.core.errors import EXIT_GOOD


@click.command("init", context_settings=HELP, short_help="Make a results directory.")
@click.argument("orgname")
@click.argument("results_dir", required=False, type=click.Path(path_type=Path))
@as_json_option
def init(orgname: str, results_dir: Path | None, as_json: bool) -> int:
    """Make RESULTS_DIR the results directory of the organisation ORGNAME, and the default of this user.

    RESULTS_DIR is MLPSTORAGE_RESULTS_DIR, else the current folder, when it is not given. It has to be empty or new;
    the same organisation again changes nothing.
    """
    from stoker.bench.run.mlperf.results_dir import VARIABLE, earlier_spellings, initialise, record_default

    for hint in earlier_spellings(os.environ):
        warn(hint)
    made = initialise(results_dir or Path(os.environ.get(VARIABLE) or "."), orgname)
    kept = record_default(made.root, os.environ)
    if as_json:
        emit_json({"results_dir": str(made.root), "orgname": made.org, "recorded_in": str(kept or "")})
        return EXIT_GOOD
    emit_text(f"{harmless(str(made.root))} is the results directory of {made.org}")
    if kept is not None:
        emit_text(f"used from now on when none is told ({harmless(str(kept))})")
    return EXIT_GOOD


@click.command("version", cls=RecordsCommand, context_settings=HELP, short_help="Versions of tool and rules.")
@as_json_option
def version(as_json: bool) -> int:
    """Print the versions of the tool, of the rules it knows, and of what it stands on."""
    from stoker.bench.rules.mlperf import EDITIONS
    from stoker.bench.run.mlperf.results_dir import SENTINEL_VERSION
    from stoker.cli.version import versions

    found = versions()
    told = {"stoker": found.pop("stoker"), "rules edition": EDITIONS[-1], "editions judged": ", ".join(EDITIONS)}
    told["results directory version"] = str(SENTINEL_VERSION)
    told |= found
    if as_json:
        emit_json({name.replace(" ", "_"): text for name, text in told.items()})
    else:
        emit_pairs(told)
    return EXIT_GOOD


@click.group("reports", cls=OrderedGroup, context_settings=HELP)
def reports() -> None:
    """Roll up what the runs of a results directory gave."""


@reports.command("reportgen", cls=RecordsCommand, context_settings=HELP, short_help="Write the rollups and manifests.")
@results_dir_option
@click.option("--systemname", "-sn", metavar="NAME", help="Only this system's models get their rollups anew.")
@dry_run_option
@as_json_option
def reportgen(results_dir: str | None, systemname: str | None, dry_run: bool, as_json: bool) -> int:
    """Write results.json and results.csv for every model, organisation and the whole tree, and submission.yaml.

    They lie in the tree itself. Only leaves of runs count. Trees that the reference tool made are rolled up alike.
    """
    from stoker.bench.run.mlperf.reporting import foreseen, generate
    from stoker.bench.run.mlperf.runs import find_root

    root = find_root(results_dir, os.environ)
    if dry_run:
        tell_foreseen("write anew, with all that lies above", foreseen(root, systemname or ""), as_json=as_json)
        return EXIT_GOOD
    written = [str(path.relative_to(root)) for path in generate(root, systemname or "")]
    if as_json:
        emit_json({"results_dir": str(root), "written": written})
    else:
        emit_text("\n".join(f"written {harmless(path)}" for path in written))
    return EXIT_GOOD


COMMANDS: Final[dict[str, click.Command]] = {
    "init": init,
    "reports": reports,
    "history": history,
    "runs": runs,
    "lockfile": lockfile,
    "validate": validate,
    "rules-coverage": rules_coverage,
    "version": version,
}
