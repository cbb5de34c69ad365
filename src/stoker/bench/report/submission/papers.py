"""The papers of a submitter's systems, made from their descriptions: covers, and the tables of power."""

from pathlib import Path

from stoker.bench.report.submission.cover import write_cover
from stoker.bench.report.submission.power import write_systems_power
from stoker.core.errors import CorruptError, NotFoundError


def write_papers(folder: Path, *, date: str) -> tuple[list[Path], list[str]]:
    """Write cover and power table of every system of `<results-dir>/<division>/<org>`.

    Returns the files, and a sentence for each description that cannot be read. `date` is what the covers show.
    Raises NotFoundError where there is no such folder.
    """
    if not folder.is_dir():
        raise NotFoundError("no submitter's folder", where=str(folder), expected="<results-dir>/<division>/<org>")
    division, org = folder.resolve().parts[-2:]
    paths: list[Path] = []
    told: list[str] = []
    for description in sorted((folder / "systems").glob("*.yaml")):
        if description.name.startswith(".") or description.is_symlink() or not description.is_file():
            continue
        try:
            paths.append(write_systems_power(description))
            cover = write_cover(description, submitter=org, division=division, date=date)
            paths += [cover] if cover is not None else []
        except CorruptError as error:
            told.append(str(error))
    return paths, told
