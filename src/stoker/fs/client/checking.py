"""Whether the bytes of a volume are there: every slice that its files show, and, read through, with its checksums."""

from collections.abc import Iterator
from typing import Final

from stoker.core.errors import CorruptError, StokerError
from stoker.fs.meta.fsck import Fault
from stoker.fs.meta.keys import number_in
from stoker.fs.meta.kv import Snapshot
from stoker.fs.meta.records import unpack_references
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SliceRange, SliceStore

_PAIRS: Final = 10_000


def used_slices(snapshot: Snapshot) -> Iterator[Slice]:
    """Return every slice that a file shows, by its number. Raises CorruptError for a row that cannot be read."""
    after = b""
    while pairs := snapshot.scan(b"r", after, _PAIRS):
        for key, value in pairs:
            yield unpack_references(number_in(key), value)[0]
        after = pairs[-1][0]


def check_data(snapshot: Snapshot, store: SliceStore, *, deep: bool = False) -> list[Fault]:
    """Return what is wrong with the bytes of a volume: slices that are missing or have another size.

    With `deep` every slice is read, which verifies its checksums. Memory grows with the number of slices: about two
    hundred bytes each. Nothing may be collected meanwhile: the caller takes the snapshot first.
    """
    faults: list[Fault] = []
    held = {(data.id, data.generation): data for data in store.inventory()}
    for data in used_slices(snapshot):
        where = f"slice {data.id} generation {data.generation}"
        found = held.get((data.id, data.generation))
        if found is None:
            faults.append(Fault("slices that files show are in the store", where, f"{data.size_bytes} bytes", "none"))
        elif found.size_bytes != data.size_bytes:
            expected, got = f"{data.size_bytes} bytes", f"{found.size_bytes} bytes"
            faults.append(Fault("slices have the size that files show", where, expected, got))
        elif deep and (problem := _read_through(store, data)):
            faults.append(Fault("bytes of slices are those that were stored", where, got=problem))
    return faults


def _read_through(store: SliceStore, data: Slice) -> str:
    """Return what is wrong with the bytes of a slice, an empty text when nothing is."""
    try:
        part = store.read([SliceRange(data, 0, data.size_bytes)])[0]
    except CorruptError as error:
        return str(error)
    except StokerError as error:
        return f"cannot be read: {error}"
    return "" if len(part) == data.size_bytes else f"{len(part)} bytes"
