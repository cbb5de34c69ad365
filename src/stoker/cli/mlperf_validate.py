"""`stoker mlperf validate` and `rules-coverage`: the judge of `stoker check`, as the reference tool's users call it."""

from pathlib import Path
from typing import Final

import click
import msgspec

from stoker.cli.judgement import checksum_of, tell, write_csv
from stoker.cli.mlperf_common import HELP, RecordsCommand, as_json_option
from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, UsageError

_CSV: Final = "summary.csv"


@click.command("validate", cls=RecordsCommand, context_settings=HELP, short_help="Judge a submission by the rules.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--submitters", metavar="A,B", help="Judge only these; all others are left out.")
@click.option(
    "--mlperf-version", metavar="VERSION", help="Edition of the rules: 1.0, 2.0, 3.0; told by the tree if not given."
)
@click.option("--csv", "csv_file", metavar="FILE", default=_CSV, show_default=True, help="Summary of the findings.")
@click.option("--skip-output-file", is_flag=True, help="Write no summary.")
@click.option("--reference-checksum", metavar="MD5", help="The digest that the code of closed results must have.")
@as_json_option
def validate(
    folder: Path,
    submitters: str | None,
    mlperf_version: str | None,
    csv_file: str,
    skip_output_file: bool,
    reference_checksum: str | None,
    as_json: bool,
) -> int:
    """Judge the submission in DIR by the rules; every breach is listed in one pass.

    Exit code 0 when it is valid, 1 when a rule is broken or something that the rules need is not there (not proven).
    Warnings alone do not count.
    """
    from stoker.bench.rules.mlperf import judge_tree, read_tree
    from stoker.bench.rules.mlperf.tables import edition_of
    from stoker.bench.run.mlperf.exits import MissingPathError

    if not folder.is_dir():
        raise MissingPathError("no such folder", where=str(folder), expected="the root of a submission")
    names = [name.strip() for name in (submitters or "").split(",") if name.strip()]
    if submitters is not None and not names:
        raise UsageError("--submitters names nobody", expected="names with commas between them")
    edition = edition_of(mlperf_version) if mlperf_version is not None else ""
    checksum = checksum_of(reference_checksum)
    judgement = judge_tree(read_tree(folder, edition=edition, submitters=names), reference_checksum=checksum)
    write_csv(judgement, None if skip_output_file else Path(csv_file))
    tell(judgement, as_json=as_json)
    return EXIT_FAILED if judgement.exit_code else EXIT_GOOD


@click.command("rules-coverage", cls=RecordsCommand, context_settings=HELP, short_help="Which rules have a check.")
@click.option(
    "--rules-md",
    "text_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Hold the rules of this text against ours.",
)
@as_json_option
def rules_coverage(text_file: Path | None, as_json: bool) -> int:
    """List the rules that a check decides, and those that none does, with the reason.

    With --rules-md, the ids and names that a Markdown text of the rules mentions are held against them; exit code 1
    when it has a rule that ours have not.
    """
    from stoker.bench.rules.mlperf.matrix import counts, rows

    if text_file is not None:
        return _against(text_file, as_json=as_json)
    listed = rows()
    if as_json:
        emit_json({"counts": counts(listed), "rules": listed})
        return EXIT_GOOD
    checked = [row for row in listed if row["check"]]
    lines = [f"checked    {row['id']:9} {row['name']}  [{row['check']}]" for row in checked]
    for row in (row for row in listed if not row["check"]):
        lines.append(
            f"unchecked  {row['id']:9} {row['name']}: {row['undecidable'] or 'by ' + ', '.join(row['covered_by'])}"
        )
    numbers = counts(listed)
    told = f"{numbers['rules']} rules: {numbers['decided']} with a check of their own, "
    told += f"{numbers['covered']} by the checks of others, {numbers['undecidable']} without"
    emit_text("\n".join([*lines, told]))
    return EXIT_GOOD


def _against(text_file: Path, *, as_json: bool) -> int:
    from stoker.bench.rules.mlperf import RULES
    from stoker.bench.rules.mlperf.coverage import coverage, read_text

    found = coverage(read_text(text_file))
    if as_json:
        emit_json(msgspec.to_builtins(found))
        return EXIT_FAILED if found.unknown else EXIT_GOOD
    lines = [f"checked    {each:9} {RULES[each].name}" for each in found.checked]
    lines += [f"unchecked  {each:9} {RULES[each].name}: {RULES[each].why_not}" for each in found.unchecked]
    lines += [f"unknown    {each:9} {harmless(name)}: not in our catalogue" for each, name in found.unknown]
    lines += [f"renamed    {each:9} {harmless(theirs)} there, {ours} here" for each, theirs, ours in found.renamed]
    lines += [f"unnamed    {each:9} {RULES[each].name}: not in the text" for each in found.unnamed]
    named = len(found.checked) + len(found.unchecked) + len(found.unknown)
    told = f"{named} rules in the text: {len(found.checked)} with a check, {len(found.unchecked)} without, "
    emit_text("\n".join([*lines, f"{told}{len(found.unknown)} unknown; {len(found.unnamed)} of ours are not in it"]))
    return EXIT_FAILED if found.unknown else EXIT_GOOD
