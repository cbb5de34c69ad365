"""`stoker check`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from stoker.bench.run.recover import load_or_recover
from stoker.cli.judgement import checksum_of, tell, write_csv
from stoker.cli.report import finish
from stoker.cli.screen import emit_json, screen
from stoker.core.errors import EXIT_GOOD, EXIT_INVALID, UsageError
from stoker.core.result import EVENTS_FILE, RESULT_FILE, Result

if TYPE_CHECKING:
    pass


@click.command("check")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@click.option("--division", type=click.Choice(["closed", "open"]), help="Judge for this division only.")
@click.option(
    "--edition", type=click.Choice(["1.0", "2.0", "3.0"]), help="The rules' edition; told by the tree if not given."
)
@click.option("--rules", "list_rules", is_flag=True, help="List the rules and what decides each.")
@click.option("--reference-checksum", metavar="MD5", help="The digest that the code of closed results must have.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write findings as CSV, too.",
    metavar="FILE",
)
@click.option("--json", "as_json", is_flag=True, help="Print the judgement as one JSON object.")
def command(
    path: Path | None,
    division: str | None,
    edition: str | None,
    list_rules: bool,
    reference_checksum: str | None,
    csv_file: Path | None,
    as_json: bool,
) -> int:
    """Judge saved results by the rules of MLPerf Storage; nothing is run and nothing is changed.

    PATH is the tree of a submission, a results folder or a single leaf of the reference tool, or a result of Stoker's
    own (a run's folder or its result.json). One pass lists every breach with its evidence. Exit codes: 0 valid, 3 not
    proven, 4 invalid.
    """
    if list_rules:
        _refuse_with_rules(path, csv_file, reference_checksum)
        return _list_rules(edition or "", division or "", as_json=as_json)
    if path is None:
        raise UsageError("nothing to check", expected="the PATH of a tree or a result, or --rules")
    if not path.exists():
        raise UsageError("nothing there", where=str(path), expected="a tree of results, a leaf, or a result of ours")
    if path.is_file() or any((path / name).is_file() for name in (RESULT_FILE, EVENTS_FILE)):
        _refuse_with_result(reference_checksum)
        return _check_own(load_or_recover(path, save=False), path, division, edition, csv_file, as_json=as_json)
    from stoker.bench.rules.mlperf import judge_tree, read_tree

    checksum = checksum_of(reference_checksum)
    judgement = judge_tree(read_tree(path, edition=edition or "", division=division or ""), reference_checksum=checksum)
    write_csv(judgement, csv_file)
    tell(judgement, as_json=as_json)
    return judgement.exit_code


def _refuse_with_rules(path: Path | None, csv_file: Path | None, checksum: str | None) -> None:
    if path is not None or csv_file is not None or checksum is not None:
        raise UsageError("--rules lists the rules and judges nothing", remedy="leave out PATH, --csv and checksum")


def _refuse_with_result(checksum: str | None) -> None:
    if checksum is not None:
        raise UsageError("a result of ours has no code image", remedy="leave out --reference-checksum")


def _check_own(
    result: Result, path: Path, division: str | None, edition: str | None, csv_file: Path | None, *, as_json: bool
) -> int:
    """Judge a result of ours: its verdict, and what the division adds. The graver exit code counts."""
    if division is None:
        if csv_file is not None or edition is not None:
            raise UsageError("a result of ours is held against a division", remedy="add --division closed or open")
        return finish(result, path, as_json=as_json, write=False)
    from stoker.bench.rules import exit_code, judge
    from stoker.bench.rules.mlperf import judge_result
    from stoker.bench.rules.mlperf.telling import judgement_dict

    judgement = judge_result(result, edition=edition or "3.0", division=division)
    write_csv(judgement, csv_file)
    own = exit_code(judge(result))
    code = EXIT_INVALID if judgement.exit_code == EXIT_INVALID and own in (EXIT_GOOD, 3) else own or judgement.exit_code
    if as_json:
        from stoker.bench.report.terminal import summary_dict

        summary = {**summary_dict(result, judge(result)), "folder": str(path), "report": ""}
        emit_json({**judgement_dict(judgement), "exit_code": code, "verdict": summary})
    else:
        finish(result, path, as_json=False, write=False)
        tell(judgement, as_json=False)
    return code


def _list_rules(edition: str, division: str, *, as_json: bool) -> int:
    from stoker.bench.rules.mlperf.matrix import counts, rows

    listed = rows(edition, division)
    if as_json:
        emit_json({"counts": counts(listed), "rules": listed})
        return EXIT_GOOD
    with screen() as console:
        for row in listed:
            told = row["tested"] or f"not decided: {row['undecidable'] or 'by ' + ', '.join(row['covered_by'])}"
            check = f"  [{row['check']}]" if row["check"] else ""
            console.print(Text(f"{row['id']:9} {row['name']}: {told}{check}"), soft_wrap=True)
        numbers = counts(listed)
        line = f"{numbers['rules']} rules: {numbers['decided']} decided, {numbers['covered']} covered by others, "
        console.print(Text(line + f"{numbers['undecidable']} not decidable"), soft_wrap=True)
    return EXIT_GOOD
