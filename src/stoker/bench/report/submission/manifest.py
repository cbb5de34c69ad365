"""submission.yaml: what a submitter's folder in a division holds, by name. It holds no figure on purpose."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from stoker.bench.report.submission.provenance import EDITION, UNKNOWN, tool
from stoker.bench.rules.mlperf.documents import SubmissionManifest, Versions
from stoker.bench.rules.mlperf.layout import Submitter, read_tree
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.provenance_checks import MANIFEST, POINTER, PROVENANCE
from stoker.bench.rules.mlperf.reading import words
from stoker.core.errors import NotFoundError, UsageError
from stoker.core.files import write_atomic


def write_manifest(folder: Path) -> Path:
    """Write the manifest of `<results-dir>/<division>/<org>` from its leaves, whole, and return its path.

    Raises NotFoundError where there is no such folder, and UsageError for names that the layout forbids.
    """
    folder = folder.resolve()
    tree = read_tree(folder.parent.parent, edition=EDITION, division=folder.parent.name)
    submitter = next((each for each in tree.submitters if each.name == folder.name), None)
    if submitter is None:
        raise NotFoundError("no submitter's folder", where=str(folder), expected="<results-dir>/<division>/<org>")
    path = folder / MANIFEST
    data = yaml.safe_dump(msgspec.to_builtins(manifest_of(submitter)), sort_keys=False, allow_unicode=True)
    write_atomic(path, data.encode())
    return path


def manifest_of(submitter: Submitter) -> SubmissionManifest:
    """Return the manifest of a submitter's folder."""
    leaves = [leaf for system in submitter.systems for series in system.series for leaf in series.leaves]
    images = sorted({name for leaf in leaves if (name := _image(leaf))})
    made_by, _ = tool(images[0] if len(images) == 1 else "")
    prefix = f"{submitter.path}/"
    document: dict[str, Any] = {
        "schema": "mlps-submission-manifest/1",
        "org": submitter.name,
        "division": submitter.division,
        "edition": EDITION,
        "layout": 3,
        "tool": msgspec.to_builtins(made_by),
        "versions": msgspec.to_builtins(_versions(leaves)),
        "systems": sorted(system.name for system in submitter.systems),
        "runs": sorted(leaf.path.removeprefix(prefix) for leaf in leaves if leaf.command == "run"),
        "code_images": images,
    }
    try:
        return msgspec.convert(document, SubmissionManifest)
    except msgspec.ValidationError as error:
        expected = "letters, digits, '.', '_' and '-' in the names of folders"
        raise UsageError("no manifest can be made", where=submitter.path, expected=expected, got=str(error)) from error


def _image(leaf: Leaf) -> str:
    return (leaf.files.text(leaf.folder.below(POINTER)) or "").strip() if leaf.has(POINTER) else ""


def _versions(leaves: Iterable[Leaf]) -> Versions:
    stamps = [leaf.document(PROVENANCE) for leaf in leaves if leaf.has(PROVENANCE)]
    return Versions(
        tool=_seen(stamps, ("tool.version",)),
        dlio=_seen(stamps, ("dlio.version",)),
        storage_library=_seen(stamps, ("storage_library.name", "storage_library.version")),
    )


def _seen(stamps: Iterable[Any], keys: tuple[str, ...]) -> list[str]:
    found = {" ".join(words(stamp, key) or UNKNOWN for key in keys) for stamp in stamps}
    return sorted(found - {" ".join([UNKNOWN] * len(keys)), " ".join(["n/a"] * len(keys))})
