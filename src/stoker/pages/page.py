"""A page as its user holds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stoker.pages.arena.layout import EDITED
from stoker.pages.elements import numpy_type, torch_type
from stoker.pages.errors import InvalidDelta
from stoker.pages.frames import Location, PageState, Residency
from stoker.pages.host import Data, PageHost
from stoker.pages.images import Meta, MetaValue
from stoker.pages.interchange import foreign_bytes, is_foreign, need_torch
from stoker.pages.snapshot import Snapshot

ELEMENTS_KEY = "dtype"
SHAPE_KEY = "shape"


def as_bytes(data: Data) -> NDArray[np.uint8]:
    """Return any data as bytes, shape (n,), without a copy where they are contiguous and on the host.

    Takes buffers, NumPy arrays, and whatever has `__dlpack__` or `__cuda_array_interface__`. Raises InvalidDelta for
    what cannot be seen as bytes, DeviceError where the memory of a device cannot be read.
    """
    if isinstance(data, bytes | bytearray | memoryview):
        return np.frombuffer(data, np.uint8)
    if is_foreign(data):
        return foreign_bytes(data)
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


class Page:
    """A handle on one page of a store: any number may look at the same page, in any process.

    Reads take no lock and give bytes of one moment. Writes are commits of their own; `store.batch()` makes one commit
    of many. Every call raises PageNotFound once the page is freed.
    """

    __slots__ = ("id", "store")

    def __init__(self, store: PageHost, page: int) -> None:
        self.store = store
        self.id = page

    def __repr__(self) -> str:
        """Tell which page of which store."""
        return f"Page({self.id}, store={self.store.name!r})"

    # -- facts ---------------------------------------------------------------------------------------------------

    @property
    def size_bytes(self) -> int:
        """Bytes of the page."""
        return self.store.arena.facts(self.id).size_bytes

    @property
    def epoch(self) -> int:
        """How many commits changed the page's bytes or size."""
        return self.store.arena.facts(self.id).epoch

    @property
    def lsn(self) -> int:
        """LSN of the last frame that concerned the page."""
        return self.store.arena.facts(self.id).lsn

    @property
    def state(self) -> PageState:
        """CLEAN, STALE or QUARANTINED; DIRTY while a process edits it, COMPUTING while one makes it anew."""
        return self.store.arena.state(self.id)

    @property
    def location(self) -> Location:
        """Where the authoritative bytes live."""
        return Location(self.store.arena.facts(self.id).location)

    @property
    def residency(self) -> Residency:
        """Which copies are the newest, as was last logged."""
        return Residency(self.store.arena.facts(self.id).residency)

    @property
    def meta(self) -> Meta:
        """What the page carries beside its bytes; a copy."""
        return self.store.meta_of(self.id)

    @property
    def name(self) -> str:
        """The page's name, empty for none."""
        return str(self.meta.get("name", ""))

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, out: Any = None) -> NDArray[np.uint8]:
        """Return a copy of the bytes, uint8 of shape (size_bytes,); in `out` when it is given, and then `out`.

        out  a contiguous array of NumPy, torch, CuPy or another package with DLPack, on the host or on a device

        Raises InvalidDelta for an `out` of another size, Timeout when a writer was stopped (not killed: then its commit
        is ended here) while it changed this very page and does not go on within 30 s.
        """
        return self.store.read(self.id, out)

    def array(self, snapshot: Snapshot | None = None) -> NDArray[np.generic]:
        """Return the array that the page was allocated for: its dtype and shape; bytes where none is told.

        Without a snapshot it is a copy. With one it is the snapshot's own memory, and any consumer of DLPack can take
        it: what is written to it stays in this process and never reaches the store; good until the snapshot closes.
        Types that NumPy does not have come as unsigned numbers of the same width.
        """
        data = self.read() if snapshot is None else snapshot.private_view(self.id)
        return typed(data, self.meta)

    def tensor(self, snapshot: Snapshot | None = None) -> Any:
        """Return the same as a torch tensor, of the torch type the page was allocated for, bfloat16 and float8 too.

        With a snapshot the tensor is made once and then kept. Raises MissingExtraError without torch.
        """
        if snapshot is None:
            return self._tensor_of(self.read())
        return snapshot.kept(self.id, lambda: self._tensor_of(snapshot.private_view(self.id)))

    def _tensor_of(self, data: NDArray[np.uint8]) -> Any:
        torch = need_torch("a page as a tensor")
        return typed_tensor(torch, torch.from_numpy(data), self.meta)

    def view(self, snapshot: Snapshot) -> NDArray[np.uint8]:
        """Return the bytes as the snapshot holds them, read-only and without a copy; good until the snapshot closes."""
        return snapshot.view(self.id)

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, data: Data, *, expect_epoch: int | None = None, source: str = "") -> int:
        """Replace all bytes, and return the LSN; what is equal is not logged, and no change makes no commit.

        Raises InvalidDelta for another size, Conflict when the page has another epoch than `expect_epoch`.
        """
        return self.store.write(self.id, data, expect_epoch=expect_epoch, source=source)

    def write_at(self, offset: int, data: Data, *, expect_epoch: int | None = None, source: str = "") -> int:
        """Overwrite bytes from `offset` on, and return the LSN. Raises as `write`; InvalidDelta beyond the end."""
        return self.store.write_at(self.id, offset, data, expect_epoch=expect_epoch, source=source)

    @contextmanager
    def edit(self, dtype: DTypeLike = np.uint8, *, source: str = "") -> Iterator[NDArray[np.generic]]:
        """Give a writable array of the page's content; what was changed in it is committed when the block ends.

        The page is DIRTY for the block, in every process: newer bytes are on their way. The array is a copy, so that
        who is killed meanwhile leaves the page as it was, and not DIRTY. Raises Conflict when somebody else changed the
        page meanwhile, Quarantined; nothing is committed when the block raises.
        """
        arena = self.store.arena
        facts, data = arena.read(self.id)
        array = data.view(dtype)
        line = arena.announce(EDITED, self.id)
        try:
            yield array
            self.store.write(self.id, data, expect_epoch=facts.epoch, source=source)
        finally:
            arena.withdraw(line)

    def resize(self, size_bytes: int) -> int:
        """Give the page another size: what fits is kept, the rest is zero. Returns the LSN.

        Raises as `Batch.resize`.
        """
        return self.store.resize(self.id, size_bytes)

    def clone(self, *, name: str = "") -> "Page":
        """Return a new page with the same bytes, elements and metadata, under another name. Raises OutOfSpace."""
        return Page(self.store, self.store.clone(self.id, name=name))

    def set_meta(self, **values: MetaValue) -> int:
        """Set or, with None, remove entries of the metadata. Returns the LSN. Raises OutOfSpace."""
        return self.store.set_meta(self.id, **values)

    def to(self, device: str, *, mode: str = "device") -> int:
        """Put a copy of the page on a device of this process, or with `host` take it back; return the LSN.

        device  as torch names it: `cuda`, `cuda:1`, `cpu`
        mode    the memory that the copy lies in, see `stoker.pages.devices.slabs`: device, pinned, mapped, unified

        Raises DeviceError where the device is missing or full; then nothing is logged.
        """
        return self.store.move_to(self.id, device, mode=mode)

    def free(self) -> int:
        """Remove the page; snapshots that hold it keep it. Returns the LSN."""
        return self.store.free(self.id)


def typed(data: NDArray[np.uint8], meta: Meta) -> NDArray[np.generic]:
    """Return bytes as the metadata's dtype and shape tell. Raises InvalidDelta where they do not fit."""
    kind, shape = meta.get(ELEMENTS_KEY), meta.get(SHAPE_KEY)
    if not isinstance(kind, str):
        return data
    try:
        array = data.view(numpy_type(kind))
        return array.reshape([int(side) for side in shape]) if isinstance(shape, list) else array
    except (TypeError, ValueError) as error:
        raise InvalidDelta("bytes of the page do not fit its dtype and shape", got=str(error)) from error


def typed_tensor(torch: Any, data: Any, meta: Meta) -> Any:
    """Return a uint8 tensor as the metadata's dtype and shape tell. Raises InvalidDelta where they do not fit."""
    kind, shape = meta.get(ELEMENTS_KEY), meta.get(SHAPE_KEY)
    if not isinstance(kind, str):
        return data
    try:
        found = data.view(torch_type(torch, kind))
        return found.reshape([int(side) for side in shape]) if isinstance(shape, list) else found
    except (RuntimeError, TypeError) as error:
        raise InvalidDelta("bytes of the page do not fit its dtype and shape", got=str(error)) from error
