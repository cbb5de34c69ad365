"""What makes a checkpoint whole: a manifest, put last of all. Without it what lies there is torn, and nobody's data.

<folder>/global_epoch1_step3/
  stoker-begun.json         put first: the folder is ours, and may be written over or removed
  zero_pp_rank_…            the files of all ranks
  stoker-checkpoint.json    put when every rank has written all of its own: the commit
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from stoker.checkpoint.content import CONTENT_VERSION, ShardContent
from stoker.checkpoint.layout import ShardFile, Totals, rank_files
from stoker.checkpoint.write import Shard
from stoker.core import clock
from stoker.core.checkpoints import ModelShape
from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.storage.api import Store, SupportsSweep

VERSION: Final = 1
BEGUN_KEY: Final = "stoker-begun.json"
MANIFEST_KEY: Final = "stoker-checkpoint.json"
MANIFEST_BYTES_MAX: Final = 1 << 20
_ID: Final = re.compile(r"global_epoch(\d{1,9})_step(\d{1,9})")
_OURS: Final = re.compile(
    r"(model_states-\d+|zero_pp_rank_\d+_mp_rank_\d+_(model|optim)_states|(layer_\d+-)?model_\d+_model_states)\.pt"
)


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A checkpoint: whose, how large, and what its content is drawn from."""

    id: str
    shape: ModelShape
    ranks: int
    files: int
    size_bytes: int
    content_seed: int
    content_version: int = CONTENT_VERSION
    committed_utc: str = ""
    version: int = VERSION


def folder_of(folder: str, checkpoint: str) -> str:
    """Return the key that the checkpoint's own keys begin with, up to and without the slash."""
    return f"{folder}/{checkpoint}" if folder else checkpoint


def begin(store: Store, folder: str, checkpoint: str) -> None:
    """Make the checkpoint's folder ours and take back the commit of what lay there. For one rank, before all others.

    Raises UsageError when the folder holds files that are not ours.
    """
    place = folder_of(folder, checkpoint)
    if is_ours(store, place):
        store.delete(f"{place}/{MANIFEST_KEY}")
        _remove_files(store, place)
        if isinstance(store, SupportsSweep):
            store.sweep(f"{place}/")
        return
    foreign = next(iter(store.list(f"{place}/")), None)
    if foreign is not None:
        raise UsageError(
            "folder holds files that we did not make",
            where=f"{store.url} {foreign.key}",
            remedy="write checkpoints into an empty folder",
        )
    store.put(f"{place}/{BEGUN_KEY}", msgspec.json.encode({"begun_utc": clock.utc_text(), "version": VERSION}))


def is_ours(store: Store, place: str) -> bool:
    """Tell whether a checkpoint was begun here by us."""
    try:
        store.stat(f"{place}/{BEGUN_KEY}")
    except NotFoundError:
        return False
    return True


def commit(
    store: Store, folder: str, checkpoint: str, *, shape: ModelShape, ranks: int, sums: Totals, content_seed: int
) -> None:
    """Make the checkpoint whole, in one put. For one rank, when all have written."""
    manifest = Manifest(
        id=checkpoint,
        shape=shape,
        ranks=ranks,
        files=sums.files,
        size_bytes=sums.size_bytes,
        content_seed=content_seed,
        committed_utc=clock.utc_text(),
    )
    store.put(f"{folder_of(folder, checkpoint)}/{MANIFEST_KEY}", msgspec.json.encode(manifest))


def load_manifest(store: Store, folder: str, checkpoint: str) -> Manifest:
    """Return the manifest of a whole checkpoint.

    Raises NotFoundError when there is none, CorruptError for a torn one and for a manifest that is not ours.
    """
    place = folder_of(folder, checkpoint)
    key, where = f"{place}/{MANIFEST_KEY}", f"{store.url} {place}"
    try:
        if store.stat(key).size_bytes > MANIFEST_BYTES_MAX:
            raise CorruptError("manifest of the checkpoint is too large", where=where, expected="at most 1 MiB")
        data = bytes(store.get_range(key))
    except NotFoundError as error:
        if is_ours(store, place):
            raise CorruptError(
                "checkpoint is torn: it was begun and never committed",
                where=where,
                expected=MANIFEST_KEY,
                remedy="write it again, or remove it",
            ) from error
        raise NotFoundError("no such checkpoint", where=where, remedy="write it first") from error
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as error:
        raise CorruptError("manifest of the checkpoint is damaged", where=where, got=str(error)) from error
    if (manifest.version, manifest.content_version, manifest.id) != (VERSION, CONTENT_VERSION, checkpoint):
        raise CorruptError(
            "manifest of the checkpoint is not ours",
            where=where,
            expected=f"version {VERSION} of {checkpoint}",
            got=f"version {manifest.version} of {manifest.id!r:.80}",
        )
    return manifest


def require_same(manifest: Manifest, shape: ModelShape, ranks: int, *, where: str) -> None:
    """Raise UsageError unless the checkpoint is one of this model on so many ranks."""
    if manifest.shape == shape and manifest.ranks == ranks:
        return
    wanted, found = (
        msgspec.to_builtins(each) | {"ranks": n} for each, n in ((shape, ranks), (manifest.shape, manifest.ranks))
    )
    differing = [name for name in wanted if wanted[name] != found[name]]
    raise UsageError(
        "checkpoint is of another model or another number of ranks",
        where=where,
        expected=", ".join(f"{name} {wanted[name]}" for name in differing),
        got=", ".join(f"{name} {found[name]}" for name in differing),
        remedy="read it as it was written, or write it anew",
    )


def shards(folder: str, checkpoint: str, shape: ModelShape, *, ranks: int, rank: int, content_seed: int) -> list[Shard]:
    """Return the files of a rank, each with its key and its content."""
    place = folder_of(folder, checkpoint)
    files: tuple[ShardFile, ...] = rank_files(shape, ranks, rank)
    return [Shard(f"{place}/{file.name}", file, ShardContent(content_seed, checkpoint, file.name)) for file in files]


def list_checkpoints(store: Store, folder: str) -> list[tuple[str, bool]]:
    """Return (id, whether it is whole) of the checkpoints of ours below the folder, in the order of epoch and step."""
    found: dict[tuple[int, int], set[str]] = {}
    for prefix, name in _marks(store, folder):
        match = _ID.fullmatch(prefix)
        if match:
            found.setdefault((int(match[1]), int(match[2])), set()).add(name)
    names = {key: f"global_epoch{key[0]}_step{key[1]}" for key in found}
    return [(names[key], MANIFEST_KEY in found[key]) for key in sorted(found) if BEGUN_KEY in found[key]]


def _marks(store: Store, folder: str) -> Iterator[tuple[str, str]]:
    start = f"{folder}/" if folder else ""
    for info in store.list(f"{start}global_epoch"):
        place, _, name = info.key.removeprefix(start).partition("/")
        if name in (BEGUN_KEY, MANIFEST_KEY):
            yield place, name


def remove(store: Store, folder: str, checkpoint: str) -> int:
    """Remove a checkpoint of ours, the manifest first and the mark last; return how many files that were.

    Files that we did not make stay. Raises UsageError, with nothing touched, where there is none of ours.
    """
    place = folder_of(folder, checkpoint)
    if not is_ours(store, place):
        raise UsageError("no checkpoint of ours is here, so nothing is removed", where=f"{store.url} {place}")
    store.delete(f"{place}/{MANIFEST_KEY}")
    removed = _remove_files(store, place)
    store.delete(f"{place}/{BEGUN_KEY}")
    if isinstance(store, SupportsSweep):
        store.sweep(f"{place}/")
    return removed


def _remove_files(store: Store, place: str) -> int:
    keys = [info.key for info in store.list(f"{place}/")]
    ours = [key for key in keys if _OURS.fullmatch(key.removeprefix(f"{place}/"))]
    for key in ours:
        store.delete(key)
    return len(ours)
