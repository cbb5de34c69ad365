"""Weights through files: versions in a folder, most of them as what changed, some whole, for workers that come and go.

`version-<number, 12 digits>.stkw` is a MessagePack map of its own length first (u64), then a blob for each tensor that
changed, in the wire codec (`stoker.pages.wire`). A whole version holds blobs that lead from zeros. A worker takes the
shortest way: from the version it has, or from a whole one. When a version is whole is decided by what the differences
cost so far (`stoker.pages.anchoring`), not by their number.

    chain = WeightChain(folder)
    chain.publish(model)                       # in the trainer, after a step
    version = follow_chain(folder, model, 0)   # in a worker, with the version it has
"""

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.core.files import write_atomic
from stoker.pages.anchoring import AnchorPolicy, Chain
from stoker.pages.errors import FormatError, PageNotFound
from stoker.pages.weights import Weights, bytes_of, take_bytes, tensors_of
from stoker.pages.wire import decode_wire, encode_wire

_HEAD_BYTES: Final = 8
_HEAD_BYTES_MAX: Final = 1 << 28


class Part(msgspec.Struct, frozen=True):
    """One tensor in a version: where its blob lies behind the head."""

    name: str
    dtype: str
    shape: list[int]
    elem_width: int
    size_bytes: int
    offset: int
    blob_bytes: int


class VersionHead(msgspec.Struct, frozen=True):
    """What a file says of itself; `names` are all tensors, `parts` those that changed."""

    version: int
    whole: bool
    chain: Chain
    names: list[str]
    parts: list[Part]


def version_path(folder: Path, version: int) -> Path:
    """Return the file of a version."""
    return folder / f"version-{version:012d}.stkw"


def versions(folder: Path) -> list[int]:
    """Return the versions that a folder holds, oldest first."""
    return sorted(int(path.stem[8:]) for path in folder.glob("version-*.stkw"))


class WeightChain:
    """The trainer's end: it keeps a copy of the weights as published last.

    policy  when a version is whole
    """

    def __init__(self, folder: Path, policy: AnchorPolicy | None = None) -> None:
        self._folder = folder
        self._policy = policy or AnchorPolicy()
        self._published: dict[str, NDArray[np.uint8]] = {}
        self._chain = Chain(0)
        found = versions(folder)
        self.version = found[-1] if found else 0

    def publish(self, model: Weights) -> VersionHead:
        """Write what changed since the last version, or all; return what was written. The first one is whole.

        Raises UsageError for other tensors than before, OSError of the disk with nothing published.
        """
        tensors = {key: bytes_of(tensor) for key, tensor in tensors_of(model).items()}
        sizes = {key: data.size for key, (data, *_) in tensors.items()}
        if self._published and sizes != {key: data.size for key, data in self._published.items()}:
            raise UsageError("model has other weights than those published before", where=str(self._folder))
        whole = not self._published or self._policy.due(self._chain)
        blobs, parts, at = [], [], 0
        for key, (data, dtype, shape, elem_width) in tensors.items():
            old = np.zeros(data.size, np.uint8) if whole else self._published[key]
            if not whole and np.array_equal(old, data):
                continue
            blob = encode_wire(old, data, elem_width if elem_width in (1, 2, 4, 8) else 1)
            parts.append(Part(key, dtype, shape, elem_width, data.size, at, len(blob)))
            blobs.append(blob)
            at += len(blob)
        chain = Chain(sum(sizes.values())) if whole else self._chain.longer(at)
        head = VersionHead(self.version + 1, whole, chain, list(tensors), parts)
        encoded = msgspec.msgpack.encode(head)
        write_atomic(
            version_path(self._folder, head.version), b"".join((len(encoded).to_bytes(8, "little"), encoded, *blobs))
        )
        for part in parts:
            self._published[part.name] = tensors[part.name][0].copy()
        self.version, self._chain = head.version, chain
        return head

    def prune(self) -> list[int]:
        """Remove the versions before the newest whole one; return them. A worker that has one of them begins anew."""
        found = versions(self._folder)
        start = self.version - self._chain.length
        gone = [version for version in found if version < start]
        for version in gone:
            version_path(self._folder, version).unlink()
        return gone


def read_head(path: Path) -> tuple[VersionHead, memoryview]:
    """Return what a file says of itself, and the bytes of its blobs. Raises FormatError, PageNotFound."""
    try:
        data = memoryview(path.read_bytes())
    except FileNotFoundError as error:
        raise PageNotFound("no such version of the weights", where=str(path)) from error
    length = int.from_bytes(data[:_HEAD_BYTES], "little")
    if len(data) < _HEAD_BYTES or length > min(_HEAD_BYTES_MAX, len(data) - _HEAD_BYTES):
        raise FormatError("file is no version of weights", where=str(path))
    try:
        head = msgspec.msgpack.decode(data[_HEAD_BYTES : _HEAD_BYTES + length], type=VersionHead)
    except msgspec.MsgspecError as error:
        raise FormatError("head of a version cannot be read", where=str(path), got=str(error)) from error
    return head, data[_HEAD_BYTES + length :]


def way_to_newest(folder: Path, have: int) -> list[int]:
    """Return the versions to take, in order: from `have` on, or from the newest whole one; none where it is the newest.

    Raises PageNotFound for a folder without a whole version.
    """
    found = versions(folder)
    if not found or found[-1] <= have:
        return []
    head, _ = read_head(version_path(folder, found[-1]))
    anchor = head.version - head.chain.length
    if have >= anchor:
        return list(range(have + 1, head.version + 1))
    if anchor not in found:
        raise PageNotFound("no whole version of the weights is left", where=str(folder), got=f"version {anchor}")
    return list(range(anchor, head.version + 1))


def follow_chain(folder: Path, model: Weights, have: int) -> int:
    """Bring a model from the version it has, 0 for none, to the newest, and return that.

    Each step is checked against the image it was made from and the one it leads to. Raises FormatError, ChecksumError,
    InvalidDelta for a model that is not what `have` says, UsageError for other tensors.
    """
    way = way_to_newest(folder, have)
    if not way:
        return have
    targets = tensors_of(model)
    images: dict[str, NDArray[np.uint8]] = {}
    for version in way:
        head, blobs = read_head(version_path(folder, version))
        for part in head.parts:
            _require_tensor(targets, part)
            if head.whole:
                images[part.name] = np.zeros(part.size_bytes, np.uint8)
            elif part.name not in images:
                images[part.name] = bytes_of(targets[part.name])[0].copy()
            blob = blobs[part.offset : part.offset + part.blob_bytes]
            decode_wire(images[part.name], blob, images[part.name])
    for name, data in images.items():
        take_bytes(targets[name], 0, data)
    return way[-1]


def _require_tensor(targets: dict[str, Any], part: Part) -> None:
    if part.name not in targets:
        raise UsageError("model has no such tensor", where=part.name)
    data, dtype, shape, _ = bytes_of(targets[part.name])
    if (dtype, shape, data.size) != (part.dtype, part.shape, part.size_bytes):
        raise UsageError(
            "tensor differs from what was published", where=part.name, expected=f"{part.dtype} {part.shape}"
        )
