"""Publishing a model's weights: the trainer writes them into pages, inference workers take what changed.

A tensor lies in pages of at most `chunk_bytes`; a manifest page tells which. Between a trainer and a worker travel only
the elements that changed: in shared memory as the store's own deltas, over a socket in the wire codec
(`stoker.pages.wire`), always without loss.

    publish_weights(model, store)                 # in the trainer, after a step
    lsn = apply_weights(model, store, since=lsn)  # in a worker on the same host
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.pages.arena.layout import Word
from stoker.pages.batch import Batch
from stoker.pages.devices.copies import DevicePages
from stoker.pages.errors import FormatError, OutOfSpace, PageNotFound, PagesError
from stoker.pages.snapshot import Snapshot
from stoker.pages.store import Store
from stoker.pages.weights_cast import cast_masters, check_dtype, is_master, master_bytes, write_all

PREFIX: Final = "weights"
CHUNK_BYTES: Final = 4 << 20
_WHOLE: Final = "whole"
_WRITING: Final = "writing"


class TensorFacts(msgspec.Struct, frozen=True):
    """One tensor of a manifest: its bytes are those of its pages, in order."""

    name: str
    dtype: str
    shape: list[int]
    elem_width: int
    pages: list[int]
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True):
    """What is published: `version` counts publications, `state` is `whole`, or `writing` between several commits."""

    version: int
    state: str
    tensors: list[TensorFacts]


class HasStateDict(Protocol):
    """A torch module, or anything with such a method."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return names and tensors; writing to the tensors changes the model."""


Weights = HasStateDict | Mapping[str, Any]
Tensors = Mapping[str, tuple[Any, str, list[int], int]]
"""By name: bytes, or a `Master` that will become some; dtype, shape and bytes an element."""


class Published(msgspec.Struct, frozen=True):
    """What one publication did: `logged_bytes` is what its frames took in the log."""

    lsn: int
    version: int
    weight_bytes: int
    changed_pages: int
    logged_bytes: int


# -- tensors of either kind ------------------------------------------------------------------------------------------


def tensors_of(model: Weights) -> dict[str, Any]:
    """Return names and tensors of a module or of a mapping."""
    found = model.state_dict() if hasattr(model, "state_dict") else model
    return dict(found)


def bytes_of(tensor: Any) -> tuple[NDArray[np.uint8], str, list[int], int]:
    """Return a tensor's bytes (a view where that is possible), dtype, shape and bytes an element.

    Takes NumPy arrays and torch tensors, those of a device by a copy. Raises UsageError for other things.
    """
    if isinstance(tensor, np.ndarray):
        if tensor.dtype.hasobject:
            raise UsageError("array of objects cannot be published")
        flat = np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)
        return flat, tensor.dtype.str, list(tensor.shape), tensor.dtype.itemsize
    if not hasattr(tensor, "element_size"):
        raise UsageError("weights are NumPy arrays or torch tensors", got=type(tensor).__name__)
    import torch

    plain = tensor.detach().to("cpu").contiguous()
    flat = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.zeros(0, np.uint8)
    return flat, str(tensor.dtype), list(tensor.shape), int(tensor.element_size())


def take_bytes(tensor: Any, start: int, data: NDArray[np.uint8]) -> None:
    """Write bytes, uint8 of shape (n,), into a tensor from a byte offset on. Raises UsageError for a strided one."""
    if isinstance(tensor, np.ndarray):
        if not tensor.flags.c_contiguous:
            raise UsageError("array to take weights is not contiguous")
        tensor.reshape(-1).view(np.uint8)[start : start + data.size] = data
        return
    import torch

    with torch.no_grad():
        if not tensor.is_contiguous():
            raise UsageError("tensor to take weights is not contiguous")
        flat = tensor.detach().reshape(-1).view(torch.uint8)
        if flat.device.type == "cpu":
            flat.numpy()[start : start + data.size] = data
        else:
            flat[start : start + data.size].copy_(torch.from_numpy(data.copy()))


# -- publishing ------------------------------------------------------------------------------------------------------


def publish_weights(
    model: Weights,
    store: Store,
    *,
    name: str = PREFIX,
    chunk_bytes: int = CHUNK_BYTES,
    source: str = "trainer",
    dtype: str = "",
    copies: DevicePages | None = None,
) -> Published:
    """Put a model's weights into the store, and return what that took.

    dtype   `bfloat16` publishes those of float32 rounded, for models of that type; else all are as they are
    copies  with it, what the rounding changed is found on the device that the weights are on, see `weights_cast`

    What changed since the last publication is one commit. When it is larger than a commit may be (the first time,
    mostly), it takes several, and workers wait for the last one.

    chunk_bytes  of a page of a tensor, at most

    Raises UsageError for no tensors, or others than at first; OutOfSpace; FormatError for a manifest that cannot be
    read, PagesError for one that does not fit its page any more.
    """
    check_dtype(dtype)
    tensors = {
        key: master_bytes(tensor, copies) if dtype and is_master(tensor) else bytes_of(tensor)
        for key, tensor in tensors_of(model).items()
    }
    if not tensors:
        raise UsageError("model has no weights to publish")
    manifest = _existing(store, name)
    if manifest is None:
        manifest = _lay_out(store, name, tensors, chunk_bytes)
    _check_same(manifest, tensors)
    before = store.counters()
    whole = msgspec.structs.replace(manifest, version=manifest.version + 1, state=_WHOLE)
    with cast_masters(copies, list(_chunks(manifest, tensors))) as pages:
        try:
            with store.batch(source=source) as batch:
                write_all(batch, pages)
                _put_manifest(store, batch, name, whole)
        except OutOfSpace:
            _publish_in_steps(store, name, whole, pages, source)
            lsn = store.lsn
        else:
            lsn = batch.lsn
    after = store.counters()
    return Published(
        lsn,
        whole.version,
        sum(data.size for data, *_ in tensors.values()),
        sum(after[key] - before[key] for key in ("deltas", "images")),
        after["delta_bytes"] - before["delta_bytes"],
    )


def _chunks(manifest: Manifest, tensors: Tensors) -> Iterator[tuple[int, Any]]:
    for facts in manifest.tensors:
        data = tensors[facts.name][0]
        chunk_bytes = -(-facts.size_bytes // len(facts.pages)) if facts.pages else 0
        chunk_bytes += -chunk_bytes % facts.elem_width
        for index, page in enumerate(facts.pages):
            yield page, data[index * chunk_bytes : (index + 1) * chunk_bytes]


def _publish_in_steps(store: Store, name: str, whole: Manifest, pages: list[tuple[int, Any]], source: str) -> None:
    """Publish more than one commit can take: as much a commit as surely fits, between two manifests."""
    with store.batch(source=source) as batch:
        _put_manifest(store, batch, name, msgspec.structs.replace(whole, state=_WRITING))
    # A frame is never much larger than its page; half of what a commit may take leaves room for the headers.
    limit = store.arena.ring.ring_bytes // 4
    waiting: list[tuple[int, Any]] = []
    for page, data in pages:
        if waiting and sum(part.size for _, part in waiting) + data.size > limit:
            with store.batch(source=source) as batch:
                write_all(batch, waiting)
            waiting = []
        waiting.append((page, data))
    with store.batch(source=source) as batch:
        write_all(batch, waiting)
        _put_manifest(store, batch, name, whole)


def _lay_out(store: Store, name: str, tensors: Tensors, chunk_bytes: int) -> Manifest:
    """Allocate pages for all tensors and the manifest. Raises OutOfSpace with nothing left behind."""
    chunk_bytes = min(chunk_bytes, store.arena.ring.ring_bytes // 8)
    facts: list[TensorFacts] = []
    with store.batch() as batch:
        for key, (data, dtype, shape, elem_width) in tensors.items():
            count = -(-data.size // chunk_bytes)
            size = -(-data.size // count) if count else 0
            size += -size % elem_width
            sizes = [min(size, data.size - start) for start in range(0, data.size, size)] if count else []
            width = elem_width if elem_width in (1, 2, 4, 8) else 1
            pages = [batch.commit.create(part, {}, elem_width=width) for part in sizes]
            facts.append(TensorFacts(key, dtype, shape, elem_width, pages, data.size))
        manifest = Manifest(0, _WRITING, facts)
        encoded = msgspec.msgpack.encode(manifest)
        batch.allocate(len(encoded) + 64, name=f"{name}/manifest")
    return manifest


def _put_manifest(store: Store, batch: Batch, name: str, manifest: Manifest) -> None:
    page = store.page(f"{name}/manifest")
    encoded = msgspec.msgpack.encode(manifest)
    body = len(encoded).to_bytes(8, "little") + encoded
    if len(body) > batch.commit.facts(page.id).size_bytes:
        raise PagesError("manifest of the weights does not fit its page", got=f"{len(body)} bytes")
    batch.write_at(page, 0, body)


def _existing(store: Store, name: str) -> Manifest | None:
    try:
        page = store.page(f"{name}/manifest")
    except PageNotFound:
        return None
    data = page.read()
    return _decode_manifest(data) if data[:8].any() else None


def _decode_manifest(data: NDArray[np.uint8]) -> Manifest:
    length = int.from_bytes(data[:8].tobytes(), "little")
    try:
        return msgspec.msgpack.decode(data[8 : 8 + length].tobytes(), type=Manifest)
    except msgspec.MsgspecError as error:
        raise FormatError("manifest of the weights cannot be read", got=str(error)) from error


def _check_same(manifest: Manifest, tensors: Tensors) -> None:
    published = {facts.name: (facts.dtype, facts.shape) for facts in manifest.tensors}
    given = {key: (dtype, shape) for key, (_, dtype, shape, _) in tensors.items()}
    if published != given:
        odd = sorted(key for key in published.keys() | given.keys() if published.get(key) != given.get(key))
        raise UsageError(
            "model has other weights than those published before",
            where=odd[0],
            expected=str(published.get(odd[0], "none")),
            got=str(given.get(odd[0], "none")),
            remedy="publish it under another name",
        )


# -- applying --------------------------------------------------------------------------------------------------------


def manifest_in(store: Store, snapshot: Snapshot, name: str = PREFIX) -> Manifest | None:
    """Return the manifest that a snapshot holds, None where nothing is published or a publication is under way.

    Raises FormatError for one that cannot be read.
    """
    try:
        page = store.page(f"{name}/manifest").id
    except PageNotFound:
        return None
    if page not in snapshot or not snapshot.view(page)[:8].any():
        return None
    manifest = _decode_manifest(snapshot.view(page))
    return manifest if manifest.state == _WHOLE else None


def apply_weights(model: Weights, store: Store, *, since: int = 0, name: str = PREFIX) -> int:
    """Bring a model to the newest whole publication, and return the LSN to give as `since` the next time.

    since  LSN that this model was brought to before, 0 for never: only pages that changed after it are copied

    Returns `since` where nothing newer is there. Raises PageNotFound where nothing was ever published, UsageError for
    a model with other weights.
    """
    targets = tensors_of(model)
    with store.snapshot() as snapshot:
        manifest = manifest_in(store, snapshot, name)
        if manifest is None:
            store.page(f"{name}/manifest")
            return since
        for facts in manifest.tensors:
            _apply_tensor(targets, facts, snapshot, since)
        return snapshot.lsn


def _apply_tensor(targets: Mapping[str, Any], facts: TensorFacts, snapshot: Snapshot, since: int) -> None:
    if facts.name not in targets:
        raise UsageError("model has no such tensor", where=facts.name)
    target, start = targets[facts.name], 0
    if list(target.shape) != facts.shape or _dtype(target) != facts.dtype:
        raise UsageError(
            "tensor differs from what was published",
            where=facts.name,
            expected=f"{facts.dtype} {facts.shape}",
            got=f"{_dtype(target)} {list(target.shape)}",
        )
    for page in facts.pages:
        image = snapshot.image(page)
        if image.lsn > since:
            take_bytes(target, start, image.data)
        start += image.size_bytes


def _dtype(tensor: Any) -> str:
    return tensor.dtype.str if isinstance(tensor, np.ndarray) else str(tensor.dtype)


def published_lsn(store: Store) -> int:
    """Return the LSN of the newest commit: whether to look at all costs one load."""
    return int(store.arena.words[Word.COMMITTED_LSN])
