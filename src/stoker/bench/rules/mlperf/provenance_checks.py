"""Descriptions, provenance, manifests, code images, comparability: what the documents beside the figures say."""

import re
from collections.abc import Iterable
from typing import Any, Final

from stoker.bench.rules.mlperf.code_images import TOOL, image_digest
from stoker.bench.rules.mlperf.description import description_faults, older_faults
from stoker.bench.rules.mlperf.documents import shipped_schema
from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.formulas import CORE_KEYS, core_hash
from stoker.bench.rules.mlperf.layout import PACKAGE, Series, Submitter, Tree
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import Folder, words
from stoker.bench.rules.mlperf.validator import faults
from stoker.core.errors import CorruptError

POINTER: Final = ".mlps-code-image"
DIGEST: Final = ".code-hash.json"
MARKER: Final = ".mlps-image-pool"
MANIFEST: Final = "submission.yaml"
PROVENANCE: Final = "provenance.json"
_IMAGE: Final = re.compile(r"code-([0-9a-f]{8})")
_MD5: Final = re.compile(r"[0-9a-f]{32}")


def system_files(submitter: Submitter, context: Context) -> Iterable[Said]:
    """Each system has a description and a picture of it, and the description keeps its schema."""
    folder = submitter.folder.find("systems")
    if folder is None:
        return  # 2.1.5 tells of it
    texts = (".yaml",) if context.tree.edition == "3.0" else (".yaml", ".yml", ".json", ".JSON")
    names = sorted(name for name in folder.files if not name.startswith(".") and not name.endswith(".md"))
    stems = {name.rpartition(".")[0] for name in names if name.endswith((*texts, ".pdf"))}
    for name in names:
        if not name.endswith((*texts, ".pdf")):
            yield Fault(f"file {name}", "one .yaml and one .pdf a system", folder.below(name))
    for stem in sorted(stems):
        if not any(f"{stem}{ending}" in folder.files for ending in texts):
            yield Fault(f"no {stem}{texts[0]}", "one .yaml and one .pdf a system", folder.path)
        if f"{stem}.pdf" not in folder.files:
            yield Fault(f"no {stem}.pdf", "one .yaml and one .pdf a system", folder.path)
    for name in (each for each in names if each.endswith(texts)):
        yield from _description(context.tree, folder.below(name))


def _description(tree: Tree, path: str) -> Iterable[Said]:
    document = tree.files.json(path) if path.lower().endswith(".json") else tree.files.yaml(path)
    if document is None:
        yield missing("what the system is", path)
        return
    edition = tree.edition
    for key, told in description_faults(document) if edition == "3.0" else older_faults(document, edition):
        yield Fault(told, "a description that keeps its schema", path, key)


def leaf_provenance(leaf: Leaf, context: Context) -> Iterable[Said]:
    """The leaf says how it was made."""
    path = leaf.folder.below(PROVENANCE)
    if not leaf.has(PROVENANCE) and context.tree.kind == PACKAGE and not is_stamped(context.tree):
        yield excused("the tool that made this layout stamped no provenance", leaf.path)
        return
    if not leaf.has(PROVENANCE):
        yield Fault(f"{PROVENANCE} is missing", "the stamp of the tool", path)
        return
    document = leaf.files.json(path)
    if document is None:
        yield missing("how the leaf was made", path)
        return
    for key, told in faults(document, shipped_schema("provenance")):
        yield Fault(told, "a stamp that keeps its schema", path, key)
    edition = words(document, "rules_edition")
    if edition is not None and edition not in ("unknown", context.tree.edition, f"v{context.tree.edition}"):
        yield Fault(f"edition {edition}", context.tree.edition, path, "rules_edition")


def manifest(submitter: Submitter, context: Context) -> Iterable[Said]:
    """The manifest names what is there."""
    path = submitter.folder.below(MANIFEST)
    if MANIFEST not in submitter.folder.files and not is_stamped(context.tree):
        yield excused("the tool that made this layout wrote no manifest", submitter.path)
        return
    if MANIFEST not in submitter.folder.files:
        yield Fault(f"{MANIFEST} is missing", "the manifest of the tool", path)
        return
    document = context.tree.files.yaml(path)
    if document is None:
        yield missing("what the manifest names", path)
        return
    wrong = faults(document, shipped_schema("submission"))
    for key, told in wrong:
        yield Fault(told, "a manifest that keeps its schema", path, key)
    if not wrong:
        yield from _manifest_agrees(submitter, context, document, path)


def _manifest_agrees(submitter: Submitter, context: Context, document: Any, path: str) -> Iterable[Said]:
    texts = [
        ("org", submitter.name),
        ("division", submitter.division),
        ("edition", context.tree.edition),
    ]
    for key, here in texts:
        if document[key] not in (here, f"v{here}" if key == "edition" else here):
            yield Fault(f"{key} {document[key]}", here, path, key)
    runs = {
        leaf.path.removeprefix(f"{submitter.path}/")
        for system in submitter.systems
        for series in system.series
        for leaf in series.runs
    }
    for key, here_all in (("systems", {system.name for system in submitter.systems}), ("runs", runs)):
        told = set(document[key])
        for name in sorted(here_all - told):
            yield Fault(f"{name} is in the tree, not in the manifest", "both", path, key)
        for name in sorted(told - here_all):
            yield Fault(f"{name} is in the manifest, not in the tree", "both", path, key)


def images(tree: Tree) -> dict[str, Folder]:
    """Return the code images by name: of the pool, and those of the older kind in a submitter's folder."""
    pools = [folder for folder in tree.top.visible() if folder.name == "code-images" or is_pool(folder)]
    found = {folder.name: folder for pool in pools for folder in pool.visible()}
    for submitter in tree.submitters:
        for folder in submitter.folder.visible():
            if _IMAGE.fullmatch(folder.name):
                found.setdefault(folder.name, folder)
    return found


def is_pool(folder: Folder) -> bool:
    """Tell whether this is an organisation's own pool of images at the root, as trees of 3.0 have it."""
    return MARKER in folder.files


def is_stamped(tree: Tree) -> bool:
    """Tell whether the tree is of the later layout of 3.0, whose tool stamps provenance and keeps one pool."""
    return tree.top.find("code-images") is not None


def _digest(tree: Tree, image: Folder) -> str | None:
    return words(tree.files.json(image.below(DIGEST)), "hash") if DIGEST in image.files else None


def code_contents(tree: Tree, _: Context) -> Iterable[Said]:
    """The code is there, each image with its digest."""
    if tree.kind != PACKAGE:
        yield excused(f"code images belong to a package; the tree is a {tree.kind}", "")
        return
    if tree.edition != "3.0":
        yield from _code_folders(tree)
        return
    found = images(tree)
    if not found:
        yield Fault("no code image", "the pool of images that the tool captured", "code-images")
    for image in found.values():
        digest = _digest(tree, image)
        if digest is None or not _MD5.fullmatch(digest):
            yield Fault(f"digest {digest}", "32 hex digits", image.below(DIGEST), "hash")


def _code_folders(tree: Tree) -> Iterable[Said]:
    for submitter in tree.submitters:
        code = submitter.folder.find("code")
        if code is not None and not code.files and not code.folders:
            yield Fault("the folder is empty", "the code that was run", code.path)


def _pointer(leaf: Leaf) -> str | None:
    """Return the name of the image that a leaf points to."""
    text = leaf.files.text(leaf.folder.below(POINTER)) if leaf.has(POINTER) else None
    return None if text is None else image_named(text)


def image_named(text: str) -> str:
    """Return the name of the image that a pointer's text tells, by that name or as `algorithm:digest`."""
    told = text.strip().rpartition("/")[2].rpartition(":")[2]
    return f"code-{told[:8]}" if _MD5.fullmatch(told) else told


def pointers_resolve(leaf: Leaf, context: Context) -> Iterable[Said]:
    """The leaf names an image of the pool."""
    if context.tree.kind != PACKAGE:
        yield excused(f"code images belong to a package; the tree is a {context.tree.kind}", leaf.path)
        return
    path = leaf.folder.below(POINTER)
    named = _pointer(leaf)
    if named is None:
        yield Fault(f"{POINTER} is missing", "the name of a code image", path)
    elif named not in images(context.tree):
        yield Fault(f"names {named or 'nothing'}", "an image in the pool", path)


def images_consistent(tree: Tree, _: Context) -> Iterable[Said]:
    """An image's name is the beginning of its digest."""
    found = images(tree)
    for name, image in found.items():
        digest = _digest(tree, image)
        named = _IMAGE.fullmatch(name)
        if named is None:
            yield Fault(f"folder {name}", "code- and eight hex digits", image.path)
        elif digest is not None and _MD5.fullmatch(digest) and not digest.startswith(named[1]):
            yield Fault(f"digest {digest}", f"one that begins with {named[1]}", image.below(DIGEST), "hash")
        else:
            yield from _counted_anew(tree, image, digest)
    if not found:
        what = "code images belong to a package"
        yield missing("any code image", "code-images") if tree.kind == PACKAGE else excused(what, "")


def _counted_anew(tree: Tree, image: Folder, digest: str | None) -> Iterable[Said]:
    """Hold an image that we captured against its digest; how others count theirs is not known."""
    if digest is None or words(tree.files.json(image.below(DIGEST)), "tool") != TOOL:
        return
    try:
        found = image_digest(tree.files.root / image.path)
    except (OSError, CorruptError) as error:
        yield Fault(f"the code cannot be counted: {error}", "the code as it was captured", image.path)
        return
    if found != digest:
        yield Fault(f"the code counts to {found}", digest, image.path, f"{DIGEST} hash")


def orphans(tree: Tree, _: Context) -> Iterable[Said]:
    """Every image is used."""
    found = images(tree)
    asked = "one division was" if tree.division else "some submitters were" if tree.only else ""
    for path in unused_images(tree).values() if not asked else ():
        yield Fault("no leaf names this image", "a leaf that was run with it", path)
    if asked:
        yield excused(f"{asked} asked for; images may be used by the others", "code-images")
    elif not found and tree.kind == PACKAGE:
        yield missing("which leaves use the images", "code-images")


def unused_images(tree: Tree) -> dict[str, str]:
    """Return the paths of the code images that no leaf names, by the images' names."""
    used = {_pointer(leaf) for leaf in tree.leaves}
    return {name: image.path for name, image in images(tree).items() if name not in used}


def legacy_pool(tree: Tree, _: Context) -> Iterable[Said]:
    """The pool is the root's, with its marker."""
    pool = tree.top.find("code-images")
    if pool is not None and MARKER not in pool.files:
        yield Fault(f"{MARKER} is missing", "the marker of the tool's pool", pool.path)
    for submitter in tree.submitters:
        for folder in submitter.folder.visible():
            if _IMAGE.fullmatch(folder.name):
                yield Fault("an image in the submitter's own folder", "the pool at the root", folder.path)
    if tree.kind != PACKAGE:
        yield excused(f"code images belong to a package; the tree is a {tree.kind}", "")


def closed_checksum(series: Series, context: Context) -> Iterable[Said]:
    """The digest of the code is the one that was given as the reference's."""
    if not context.reference_checksum:
        yield excused("no reference checksum was given, and none was ever pinned by the edition", series.path)
        return
    found = images(context.tree)
    for leaf in series.runs:
        image = found.get(_pointer(leaf) or "")
        digest = _digest(context.tree, image) if image is not None else None
        if digest is None:
            yield missing("the digest of the leaf's code", leaf.path)
        elif digest != context.reference_checksum:
            yield Fault(f"digest {digest}", context.reference_checksum, leaf.folder.below(POINTER))


def one_class(series: Series, _: Context) -> Iterable[Said]:
    """All runs of a result are of one class: accelerator, processes, hosts, the core of the configuration."""
    runs = series.runs
    if not runs:
        return
    yield from _equal("accelerator", [(leaf, leaf.accelerator) for leaf in runs], "metadata")
    yield from _equal("accelerators", [(leaf, leaf.accelerators) for leaf in runs], "summary.json num_accelerators")
    yield from _equal("hosts", [(leaf, leaf.hosts) for leaf in runs], "summary.json num_hosts")
    stamps = [(leaf, _stamped(leaf)) for leaf in runs]
    yield from _equal("stamped core hash", stamps, f"{PROVENANCE} core_config.hash")
    if series.family in CORE_KEYS:
        cores = [(leaf, core_hash(series.family, leaf.config) if leaf.config else None) for leaf in runs]
        yield from _equal("core of the configuration, by its hash,", cores, "config.yaml")
        if all(core is None for _, core in cores):
            yield missing("the resolved configuration", series.path)


def _stamped(leaf: Leaf) -> str | None:
    found = leaf.document(PROVENANCE)
    told = words(found, "core_config.hash")
    return told if told != "unknown" else None


def _equal(what: str, told: list[tuple[Leaf, Any]], key: str) -> Iterable[Said]:
    known = [(leaf, value) for leaf, value in told if value not in (None, "")]
    for leaf, value in known[1:]:
        if value != known[0][1]:
            yield Fault(f"{what} {value}", f"{known[0][1]}, as in {known[0][0].path}", leaf.path, key)


CHECKS = {
    "2.1.6": Check("tree", code_contents),
    "2.1.7": Check("submitter", system_files),
    "3.6.1": Check("series", closed_checksum),
    "5.6.1": Check("series", closed_checksum),
    "PROV-01": Check("leaf", leaf_provenance),
    "PROV-02": Check("submitter", manifest),
    "CHECK-01": Check("leaf", pointers_resolve),
    "CHECK-02": Check("tree", images_consistent),
    "CHECK-03": Check("tree", orphans),
    "CHECK-04": Check("tree", legacy_pool),
    "COMP-01": Check("series", one_class),
}
