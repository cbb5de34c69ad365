"""The marker says whose a split is: it is put before the first file, and only a split that has one is ever resumed
or removed."""

import msgspec

from stoker.core.errors import AlreadyExistsError, CorruptError, NotFoundError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import run_id
from stoker.loader.dataset.content import CONTENT_VERSION
from stoker.loader.dataset.naming import marker_key
from stoker.loader.dataset.recipe import Recipe, side_folder, spec_facts
from stoker.storage.api import Store

MARKER_VERSION = 1


class Marker(msgspec.Struct, frozen=True):
    """What a split was begun with. `identity` ties the journal's parts to this beginning and no other."""

    identity: str
    spec: DatasetSpec
    files_before: int = 0
    side_suffixes: tuple[str, ...] = ()
    content_version: int = CONTENT_VERSION
    version: int = MARKER_VERSION


def read_marker(store: Store, split: str) -> Marker | None:
    """Return the split's marker, None when it has none. Raises CorruptError when it is not ours or damaged."""
    key = marker_key(split)
    try:
        data = bytes(store.get_range(key))
    except NotFoundError:
        return None
    try:
        marker = msgspec.json.decode(data, type=Marker)
    except msgspec.DecodeError as error:
        raise CorruptError(
            "marker of the dataset is damaged", where=f"{store.url} {key}", got=str(error), remedy="use another folder"
        ) from error
    if marker.version != MARKER_VERSION or marker.spec.split != split:
        raise CorruptError(
            "marker of the dataset is not ours",
            where=f"{store.url} {key}",
            expected=f"version {MARKER_VERSION}, split {split!r}",
            got=f"version {marker.version}, split {marker.spec.split!r}",
            remedy="use another folder",
        )
    return marker


def inspect(store: Store, recipe: Recipe) -> Marker | None:
    """Return the marker of the split that this recipe would resume, None where it would begin one.

    Nothing is touched. Raises UsageError when the place holds a split of another spec, or files that we did not make.
    """
    marker = read_marker(store, recipe.spec.split)
    if marker is None:
        foreign = _first_foreign(store, recipe)
        # Another rank may have begun since: then what was found is ours.
        marker = read_marker(store, recipe.spec.split) if foreign else None
        if marker is None and foreign:
            raise UsageError(
                "folder holds files that we did not make",
                where=f"{store.url} {foreign}",
                remedy="generate into an empty folder",
            )
    if marker is not None:
        check_same(store, recipe, marker)
    return marker


def begin(store: Store, recipe: Recipe) -> Marker:
    """Make the split ours and return its marker. Of several ranks one puts it, the others find it."""
    marker = Marker(run_id(), recipe.spec, recipe.files_before, recipe.side_suffixes)
    try:
        store.put(marker_key(recipe.spec.split), msgspec.json.encode(marker), if_absent=True)
    except AlreadyExistsError:
        found = read_marker(store, recipe.spec.split)
        if found is None:
            raise
        check_same(store, recipe, found)
        return found
    return marker


def _first_foreign(store: Store, recipe: Recipe) -> str:
    """Return the key of an object in a folder that the split would use, '' when they are empty."""
    split = recipe.spec.split
    folders = {f"{split}/", *(side_folder(recipe.format, split, suffix) for suffix in recipe.side_suffixes)}
    for folder in sorted(folders):
        for info in store.list(folder):
            return info.key
    return ""


def check_same(store: Store, recipe: Recipe, marker: Marker) -> None:
    """Raise UsageError, naming what differs, unless the split was begun with this very recipe."""
    wanted = spec_facts(recipe.spec) | {"files_before": recipe.files_before, "content_version": CONTENT_VERSION}
    found = spec_facts(marker.spec) | {
        "files_before": marker.files_before,
        "content_version": marker.content_version,
    }
    differing = [name for name in wanted if wanted[name] != found[name]]
    if differing:
        raise UsageError(
            "folder holds a dataset of another spec",
            where=f"{store.url} {recipe.spec.split}",
            expected=", ".join(f"{name} {wanted[name]!r}" for name in differing),
            got=", ".join(f"{name} {found[name]!r}" for name in differing),
            remedy="use --force to remove it and generate anew, or another folder",
        )
