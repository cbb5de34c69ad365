"""Reads a batch of ranges, as the loader does, and returns plain bytes."""

from contextlib import closing

import numpy as np

from stoker.kernels.files import DONE_STATUS
from stoker.storage.api import Store
from stoker.storage.batch import BatchRead, SupportsBatchRead
from stoker.storage.buffers import address_of, fresh_view


def read_batch(store: Store, wanted: list[tuple[str, int, int]]) -> list[bytes]:
    """Return the bytes of ranges of as many objects, read in one call."""
    assert isinstance(store, SupportsBatchRead)
    reader = store.batch_reader()
    assert reader is not None
    memory = [fresh_view(length) for _, _, length in wanted]
    rows = []
    for number, ((_, offset, length), into) in enumerate(zip(wanted, memory, strict=True)):
        rows.append((number, offset, length, length, address_of(into)))
    batch = BatchRead([key for key, _, _ in wanted], np.array(rows, np.int64))
    with closing(reader):
        reader.read(batch)
        failed = [reader.error(batch, index) for index in np.flatnonzero(batch.ranges_done[:, DONE_STATUS]).tolist()]
    assert failed == []
    return [bytes(into) for into in memory]
