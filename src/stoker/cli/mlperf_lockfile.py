"""`stoker mlperf lockfile`: pinning what is installed, and holding it against the pins."""

from pathlib import Path
from typing import Final

import click
import msgspec

from stoker.cli.groups import OrderedGroup
from stoker.cli.mlperf_common import HELP, RecordsCommand, as_json_option
from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD

_LOCK: Final = "requirements.txt"


@click.group("lockfile", cls=OrderedGroup, context_settings=HELP)
def lockfile() -> None:
    """Pin the packages of a project, or hold what is installed against the pins."""


@lockfile.command("generate", cls=RecordsCommand, context_settings=HELP, short_help="Pin what a project needs.")
@click.option("--output", "-o", default=_LOCK, show_default=True, metavar="FILE", help="Lock file to write.")
@click.option("--extra", "extras", multiple=True, metavar="NAME", help="Include this extra; may be repeated.")
@click.option("--hashes", is_flag=True, help="Pin the hashes of the packages, too.")
@click.option("--python-version", metavar="VERSION", help="Resolve for this Python, such as 3.11.")
@click.option("--pyproject", default="pyproject.toml", show_default=True, metavar="FILE", help="Project to resolve.")
@click.option("--all", "every", is_flag=True, help="Write the base, and requirements-full.txt with all extras.")
@as_json_option
def generate(
    output: str,
    extras: tuple[str, ...],
    hashes: bool,
    python_version: str | None,
    pyproject: str,
    every: bool,
    as_json: bool,
) -> int:
    """Resolve a project into a lock file: exact versions of all it needs. uv has to be installed."""
    from stoker.bench.run.lockfile import generate_lockfile

    written = generate_lockfile(
        Path(output),
        pyproject=Path(pyproject),
        extras=extras,
        hashes=hashes,
        python_version=python_version or "",
        every=every,
    )
    if as_json:
        emit_json({"written": [str(path) for path in written]})
    else:
        emit_text("\n".join(f"written {harmless(str(path))}" for path in written))
    return EXIT_GOOD


@lockfile.command(
    "verify", cls=RecordsCommand, context_settings=HELP, short_help="Hold what is installed against a lock."
)
@click.option("--lockfile", "-l", "file", default=_LOCK, show_default=True, metavar="FILE", help="Lock file.")
@click.option("--skip", multiple=True, metavar="PATTERN", help="Leave these packages out; may be repeated.")
@click.option("--allow-missing", is_flag=True, help="A package that is not installed is no difference.")
@click.option("--strict", is_flag=True, help="An installed package that the lock does not name is a difference, too.")
@as_json_option
def verify(file: str, skip: tuple[str, ...], allow_missing: bool, strict: bool, as_json: bool) -> int:
    """Hold the installed packages against a lock file. Exit code 1 when they differ."""
    from stoker.bench.run.lockfile import verify_lockfile
    from stoker.bench.run.mlperf.locks import unlocked

    report = verify_lockfile(Path(file), skip=skip, allow_missing=allow_missing)
    besides = unlocked(report) if strict else []
    valid = report.valid and not besides
    if as_json:
        emit_json({**msgspec.to_builtins(report), "valid": valid, "unlocked": besides})
        return EXIT_GOOD if valid else EXIT_FAILED
    lines = [
        f"{each.status:10}  {each.name}: locked {each.expected}, {each.actual or 'not installed'}"
        for each in report.of("mismatched", "missing")
    ]
    lines += [f"unlocked    {each}: not in the lock" for each in besides]
    told = f"{report.matched} of {report.total_packages} packages as locked, {report.mismatched} differ, "
    told += f"{report.missing} missing, {report.skipped} skipped"
    emit_text("\n".join([*map(harmless, lines), told + (f", {len(besides)} not in the lock" if strict else "")]))
    return EXIT_GOOD if valid else EXIT_FAILED
