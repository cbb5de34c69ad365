"""What every store of slices must do, as tests.

Subclass `SliceStoreContract` in a test module and supply `make_store`; a store that keeps its slices beyond its process
also supplies `open_store` and names a function for other processes, and whatever else of this it can do:

    class TestMyStore(SliceStoreContract):
        opener = "my.module:MyStore"            # called with the folder, in another process that is killed

        def make_store(self, folder): ...       # a new, empty store
        def open_store(self, folder): ...       # the store that was made there and closed
        def spoil(self, store, data): ...       # change a byte of a slice behind the store's back
        def make_small_store(self, folder): ... # one that takes a few MiB; skip where there can be none
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from stoker.core.errors import CorruptError, NoSpaceError, NotFoundError, StokerError, StoreError
from stoker.core.units import KiB, MiB
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import SliceRange, SliceStore

SIZES: Final = (1, 511, 4095, 4096, 4097, 70_000, MiB - 1, MiB, MiB + 3)
_KILLED_AFTER: Final = 30
_WRITER: Final = """
import pkgutil, sys
from pathlib import Path
from stoker.fs.meta.slices import Slice
from stoker.testing.slice_store_contract import content
store = pkgutil.resolve_name(sys.argv[1])(Path(sys.argv[2]))
for number in range(1, 100_000):
    data = Slice(number, 1, 1 << 20 if number % 7 == 0 else 5000 + number)
    store.write(data, [content(data)], durable=number % 2 == 0)
    print(number, flush=True)
"""


def content(data: Slice) -> bytes:
    """Return the bytes of a slice: other ones for each, and the same each time."""
    return np.random.Generator(np.random.SFC64([data.id, data.generation])).bytes(data.size_bytes)


def whole(data: Slice) -> SliceRange:
    """Return the range that is all of a slice."""
    return SliceRange(data, 0, data.size_bytes)


def stored(store: SliceStore, data: Slice, *, durable: bool = False) -> Slice:
    """Store a slice with its content, and return it."""
    store.write(data, [content(data)], durable=durable)
    return data


def is_there(store: SliceStore, data: Slice) -> bool:
    """Tell whether a slice is there; whatever is there must be whole."""
    try:
        found = store.read([whole(data)])
    except NotFoundError:
        return False
    assert bytes(found[0]) == content(data)
    return True


class SliceStoreContract:
    """Subclass it and supply `make_store`."""

    opener: str = ""
    open_store: Callable[[Path], SliceStore] | None = None
    spoil: Callable[[SliceStore, Slice], None] | None = None
    make_small_store: Callable[[Path], SliceStore] | None = None

    def make_store(self, folder: Path) -> SliceStore:
        """Return a new, empty store; the folder is there to be used."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[SliceStore]:
        """Make the store under test and close it."""
        with closing(self.make_store(tmp_path / "store")) as store:
            yield store

    # -- bytes ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_what_was_written_is_read(self, store: SliceStore, size_bytes: int) -> None:
        data = Slice(7, 1, size_bytes, storage_class=3)
        wanted = content(data)
        cut = size_bytes // 3
        store.write(data, [wanted[:cut], bytearray(wanted[cut:-1]), memoryview(wanted[-1:])], durable=True)
        assert bytes(store.read([whole(data)])[0]) == wanted
        half = SliceRange(data, size_bytes // 2, size_bytes - size_bytes // 2)
        assert bytes(store.read([half])[0]) == wanted[size_bytes // 2 :]

    def test_many_ranges_come_in_their_order(self, store: SliceStore) -> None:
        slices = [stored(store, Slice(number, 1, 3 * KiB * number * number)) for number in range(1, 20)]
        chance = np.random.default_rng(5)
        ranges = []
        for _ in range(300):
            data = slices[int(chance.integers(len(slices)))]
            offset, end = sorted(chance.integers(0, data.size_bytes + 1, 2).tolist())
            ranges.append(SliceRange(data, offset, end - offset))
        found = store.read(ranges)
        assert [bytes(part) for part in found] == [content(r.slice)[r.offset : r.offset + r.length] for r in ranges]
        assert store.read([]) == []

    def test_a_range_that_leaves_its_slice_is_refused(self, store: SliceStore) -> None:
        data = stored(store, Slice(1, 1, 1000))
        for offset, length in ((0, 1001), (1000, 1), (-1, 5), (5, -1), (2000, 0)):
            with pytest.raises(StokerError):
                store.read([SliceRange(data, offset, length)])
        assert bytes(store.read([SliceRange(data, 1000, 0)])[0]) == b""

    def test_what_was_read_stays_when_the_slice_goes(self, store: SliceStore) -> None:
        for size_bytes in (5000, 2 * MiB):
            data = stored(store, Slice(size_bytes, 1, size_bytes))
            found = store.read([whole(data)])
            store.remove([data])
            stored(store, Slice(size_bytes, 2, size_bytes))
            assert bytes(found[0]) == content(data)

    # -- which slices --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("size_bytes", [4000, 2 * MiB])
    def test_the_same_slice_may_come_again_but_not_with_other_bytes(self, store: SliceStore, size_bytes: int) -> None:
        data = stored(store, Slice(1, 1, size_bytes))
        stored(store, data, durable=True)
        other = bytearray(content(data))
        other[-1] ^= 1
        with pytest.raises(StoreError):
            store.write(data, [other], durable=True)
        assert bytes(store.read([whole(data)])[0]) == content(data)

    def test_generations_are_different_slices(self, store: SliceStore) -> None:
        old, new = stored(store, Slice(1, 1, 5000)), stored(store, Slice(1, 2, 6000))
        assert is_there(store, old)
        assert is_there(store, new)
        store.remove([old])
        assert not is_there(store, old)
        assert is_there(store, new)

    def test_a_slice_of_another_size_is_refused(self, store: SliceStore) -> None:
        data = Slice(1, 1, 5000)
        for part in (content(data)[:-1], content(data) + b"x", b""):
            with pytest.raises(StoreError):
                store.write(data, [part], durable=True)
        assert not is_there(store, data)
        assert list(store.inventory()) == []

    def test_what_is_missing_is_named(self, store: SliceStore) -> None:
        there = stored(store, Slice(1, 1, 5000))
        for missing in (Slice(2, 1, 5000), Slice(1, 2, 5000), Slice(1, 1, 4999)):
            with pytest.raises(NotFoundError):
                store.read([whole(there), whole(missing)])
        with pytest.raises(NotFoundError, match="77"):
            store.read([whole(there), whole(Slice(77, 1, 10)), whole(Slice(88, 1, 10))])
        with pytest.raises(NotFoundError):
            store.make_durable([there, Slice(2, 1, 5000)])
        store.make_durable([there])
        store.make_durable([])

    def test_removed_is_gone_and_may_come_again(self, store: SliceStore) -> None:
        slices = [stored(store, Slice(number, 1, size_bytes)) for number, size_bytes in enumerate(SIZES, 1)]
        store.remove(slices[::2])
        store.remove([*slices[::2], Slice(999, 1, 5)])
        assert [is_there(store, data) for data in slices] == [index % 2 == 1 for index in range(len(slices))]
        for data in slices[::2]:
            stored(store, data, durable=True)
        assert all(is_there(store, data) for data in slices)

    def test_the_inventory_is_all_there_is(self, store: SliceStore) -> None:
        slices = {stored(store, Slice(number, number % 3, 100 + number, number % 5)) for number in range(1, 300)}
        large = stored(store, Slice(2**63, 2**40, 2 * MiB, 9))
        assert sorted(store.inventory(), key=lambda data: data.id) == sorted({*slices, large}, key=lambda data: data.id)
        store.remove([large])
        assert set(store.inventory()) == slices

    # -- threads -------------------------------------------------------------------------------------------------

    def test_many_threads_at_once(self, store: SliceStore) -> None:
        def work(worker: int) -> None:
            for number in range(12):
                data = Slice(worker * 100 + number, 1, (MiB + worker) if number % 6 == 0 else 3000 + number)
                stored(store, data, durable=number % 3 == 0)
                assert is_there(store, data)
                if number % 2:
                    store.remove([data])
                    assert not is_there(store, data)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert len(list(store.inventory())) == 8 * 6

    @pytest.mark.parametrize("size_bytes", [3000, 2 * MiB])
    def test_one_slice_by_many_threads(self, store: SliceStore, size_bytes: int) -> None:
        data = Slice(5, 1, size_bytes)
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(lambda _: stored(store, data, durable=True), range(6)))
        assert is_there(store, data)
        assert list(store.inventory()) == [data]

    # -- bad days ------------------------------------------------------------------------------------------------

    def test_closing_keeps_everything(self, tmp_path: Path) -> None:
        folder = tmp_path / "store"
        store = self.make_store(folder)
        slices = [stored(store, Slice(number, 1, size_bytes)) for number, size_bytes in enumerate(SIZES, 1)]
        store.close()
        store.close()
        if self.open_store is None:
            return
        with closing(self.open_store(folder)) as store:
            assert all(is_there(store, data) for data in slices)
            assert len(list(store.inventory())) == len(slices)

    def test_nothing_durable_is_lost_when_the_process_is_killed(self, tmp_path: Path) -> None:
        if not self.opener or self.open_store is None:
            pytest.skip("the store ends with its process")
        folder = tmp_path / "store"
        self.make_store(folder).close()
        command = [sys.executable, "-c", _WRITER, self.opener, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as writer:  # noqa: S603 - our own
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) >= _KILLED_AFTER:
                    break
            writer.send_signal(signal.SIGKILL)
            told = [_KILLED_AFTER, *(int(line) for line in writer.stdout)]
        slices = [Slice(n, 1, MiB if n % 7 == 0 else 5000 + n) for n in range(1, max(told) + 2)]
        with closing(self.open_store(folder)) as store:
            there = {data.id for data in slices if is_there(store, data)}
            assert set(range(2, max(told) + 1, 2)) <= there
            assert {data.id for data in store.inventory()} == there

    @pytest.mark.parametrize("size_bytes", [5000, 2 * MiB])
    def test_spoilt_bytes_are_never_given(self, store: SliceStore, size_bytes: int) -> None:
        if self.spoil is None:
            pytest.skip("the test cannot spoil what the store holds")
        data, other = stored(store, Slice(1, 1, size_bytes), durable=True), stored(store, Slice(2, 1, size_bytes))
        self.spoil(store, data)
        for _ in range(2):
            with pytest.raises(CorruptError):
                store.read([whole(data)])
        assert is_there(store, other)
        stored(store, data, durable=True)  # written again it is whole again
        assert is_there(store, data)

    def test_a_full_store_refuses_and_keeps_what_it_has(self, tmp_path: Path) -> None:
        if self.make_small_store is None:
            pytest.skip("the test has no small store")
        with closing(self.make_small_store(tmp_path / "store")) as store:
            slices: list[Slice] = []
            refused = Slice(0, 1, 1)
            with pytest.raises(NoSpaceError):
                for number in range(1, 1000):
                    refused = Slice(number, 1, MiB + 5 if number % 2 else 40_000)
                    slices.append(stored(store, refused, durable=number % 3 == 0))
            assert len(slices) > 2
            assert not is_there(store, refused)
            assert all(is_there(store, data) for data in slices)
            assert set(store.inventory()) == set(slices)
            large = [data for data in slices if data.size_bytes > MiB]
            store.remove(large)
            assert is_there(store, stored(store, refused, durable=True))
