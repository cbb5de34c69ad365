"""What every holder of shards must do, as tests: a disk in this process, or one behind a network.

Subclass `ShardHolderContract` in a test module, supply `make_holder`, and pytest runs it all:

    class TestMyHolder(ShardHolderContract):
        def make_holder(self, folder):
            return MyHolder(folder, volume=VOLUME)

A holder with a `close` is closed when its test is over.
"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from stoker.core.errors import AlreadyExistsError, CorruptError, NotFoundError, UsageError
from stoker.core.units import KiB, MiB
from stoker.fs.disk.checksums import cell_crcs
from stoker.fs.disk.interface import SHARD_BYTES_MAX, Found, ShardHeader, ShardHolder, ShardId, ShardPage, Wanted

VOLUME: Final = "0b7c5a1e-30a4-4c53-9d0e-6f1f3a0d7c11"
OTHER_VOLUME: Final = "e58f2c34-8a6b-4f3d-a1c7-2f9d5b0e4a22"
SIZES: Final = (0, 1, 4095, 4096, 4097, 70_000, MiB, 3 * MiB + 5)


def content(size_bytes: int, seed: int = 0) -> bytes:
    """Return reproducible bytes without a pattern."""
    return np.random.Generator(np.random.SFC64(seed)).bytes(size_bytes)


def header_of(shard: ShardId, data: bytes, *, cell_bytes: int = 4 * KiB, volume: str = VOLUME) -> ShardHeader:
    """Return the header of a shard with these bytes."""
    return ShardHeader(
        volume, shard, storage_class=3, k=1, m=0, cell_bytes=cell_bytes, slice_bytes=len(data), shard_bytes=len(data),
        crcs=cell_crcs([data], cell_bytes),
    )  # fmt: skip


class ShardHolderContract:
    """The suite."""

    def make_holder(self, folder: Path) -> ShardHolder:
        """Return a new, empty holder of `VOLUME`; `folder` is empty, and there to be used."""
        raise NotImplementedError

    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator[ShardHolder]:
        """Return a holder; it is closed when the test is over."""
        folder = tmp_path / "holder"
        folder.mkdir()
        made: Any = self.make_holder(folder)
        yield made
        if hasattr(made, "close"):
            made.close()

    @pytest.mark.parametrize("size_bytes", SIZES)
    @pytest.mark.parametrize("cell_bytes", [4 * KiB, MiB])
    def test_what_was_put_is_there(self, holder: ShardHolder, size_bytes: int, cell_bytes: int) -> None:
        """Bytes and header come back whole, in parts, and out of order."""
        data, shard = content(size_bytes), ShardId(7, 2, 5)
        header = header_of(shard, data, cell_bytes=cell_bytes)
        cut = size_bytes // 3
        holder.put(header, [data[:cut], memoryview(data)[cut:], b""], durable=True)
        assert holder.header(shard) == header
        half = size_bytes // 2
        ranges = [(half, size_bytes - half), (0, size_bytes), (size_bytes, 0), (half // 2, min(10, half))]
        found = [bytes(part) for part in holder.get(shard, ranges)]
        assert found == [data[offset : offset + length] for offset, length in ranges]
        assert holder.get(shard, []) == []

    @pytest.mark.slow
    def test_the_greatest_shard_is_held(self, holder: ShardHolder) -> None:
        """A shard may have as many bytes as a slice, and cells as small as there are."""
        data, shard = content(SHARD_BYTES_MAX), ShardId(1, 1, 0)
        holder.put(header_of(shard, data), [data], durable=False)
        middle = SHARD_BYTES_MAX // 2
        assert [bytes(part) for part in holder.get(shard, [(middle, 9), (middle + MiB, 9), (0, 1)])] == [
            data[middle : middle + 9],
            data[middle + MiB : middle + MiB + 9],
            data[:1],
        ]
        assert bytes(holder.get(shard, [(0, SHARD_BYTES_MAX)])[0]) == data

    def test_putting_again_is_one_put(self, holder: ShardHolder) -> None:
        """The same bytes may come again; others under the same name are refused."""
        data, shard = content(9000), ShardId(1, 1, 0)
        header = header_of(shard, data)
        for durable in (False, True, False):
            holder.put(header, [data], durable=durable)
        other = content(9000, seed=1)
        with pytest.raises(AlreadyExistsError):
            holder.put(header_of(shard, other), [other], durable=True)
        assert bytes(holder.get(shard, [(0, 9000)])[0]) == data
        assert holder.status().shards == 1

    def test_bytes_that_do_not_fit_are_refused(self, holder: ShardHolder) -> None:
        """Neither damaged bytes nor too few or too many leave anything."""
        data, shard = content(9000), ShardId(1, 1, 0)
        header = header_of(shard, data)
        for wrong in (bytes([data[0] ^ 1]) + data[1:], data[:-1], data + b"x", b""):
            with pytest.raises(CorruptError):
                holder.put(header, [wrong], durable=True)
        assert holder.listing(None, 10) == ShardPage([], [], more=False, complete=True)
        with pytest.raises(NotFoundError):
            holder.header(shard)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"volume": OTHER_VOLUME},
            {"volume": "../../etc"},
            {"cell_bytes": 0},
            {"cell_bytes": 5000},
            {"k": 0},
            {"crcs": b""},
            {"shard": ShardId(-1, 0, 0)},
            {"shard": ShardId(1, 0, 300)},
            {"shard_bytes": SHARD_BYTES_MAX + 1},
        ],
    )
    def test_headers_that_are_none_are_refused(self, holder: ShardHolder, wrong: dict[str, Any]) -> None:
        """What a header claims is checked before anything is stored."""
        data = content(9000)
        with pytest.raises((UsageError, CorruptError)):
            holder.put(msgspec.structs.replace(header_of(ShardId(1, 1, 0), data), **wrong), [data], durable=True)
        assert holder.status().shards == 0

    @pytest.mark.parametrize("part", [(0, 9001), (9000, 1), (-1, 5), (5, -1), (2**70, 1)])
    def test_ranges_that_leave_the_shard_are_refused(self, holder: ShardHolder, part: tuple[int, int]) -> None:
        """Nothing beyond the last byte is ever given."""
        data, shard = content(9000), ShardId(1, 1, 0)
        holder.put(header_of(shard, data), [data], durable=True)
        with pytest.raises((UsageError, CorruptError)):
            holder.get(shard, [(0, 1), part])

    def test_what_is_not_there_is_told(self, holder: ShardHolder) -> None:
        """Asking for it names it; removing it is no error."""
        shard = ShardId(41, 3, 2)
        for ask in (lambda: holder.get(shard, [(0, 1)]), lambda: holder.header(shard), lambda: holder.sync([shard])):
            with pytest.raises(NotFoundError, match=r"41\.3\.2"):
                ask()
        holder.remove([shard])
        holder.sync([])
        holder.remove([])

    def test_many_shards_are_read_together(self, holder: ShardHolder) -> None:
        """Each gives its own, in the order asked for: bytes, its header where that is wanted, or its own error."""
        shards = {ShardId(number, 1, 0): content(size, number) for number, size in enumerate(SIZES)}
        for shard, data in shards.items():
            holder.put(header_of(shard, data), [data], durable=False)
        wanted = [
            Wanted(shard, [(len(data) // 2, len(data) - len(data) // 2), (0, len(data) // 3)], checked=True)
            for shard, data in reversed(shards.items())
        ]
        found = holder.get_many([*wanted[:3], Wanted(ShardId(99, 1, 0), [(0, 1)]), *wanted[3:], wanted[0]])
        missing = found.pop(3)
        assert isinstance(missing, NotFoundError) and "99.1.0" in str(missing)
        for one, outcome in zip([*wanted, wanted[0]], found, strict=True):
            data = shards[one.shard]
            assert isinstance(outcome, Found) and outcome.header is not None
            assert [bytes(part) for part in outcome.parts] == [data[at : at + count] for at, count in one.ranges]
            told = msgspec.structs.replace(outcome.header, volume=VOLUME, crcs=b"")
            assert told == msgspec.structs.replace(header_of(one.shard, data), crcs=b"")
        outside = holder.get_many([Wanted(ShardId(3, 1, 0), [(4096, 1)]), Wanted(ShardId(3, 1, 0), [(4095, 1)])])
        assert isinstance(outside[0], UsageError | CorruptError) and isinstance(outside[1], Found)
        assert holder.get_many([]) == []

    def test_what_is_removed_is_gone(self, holder: ShardHolder) -> None:
        """Alone, and it may be put anew."""
        data = content(5000)
        shards = [ShardId(1, 1, index) for index in range(4)]
        for shard in shards:
            holder.put(header_of(shard, data), [data], durable=False)
        holder.sync(shards)
        holder.remove(shards[1:3])
        assert [header.shard for header in holder.listing(None, 10).headers] == [shards[0], shards[3]]
        with pytest.raises(NotFoundError):
            holder.get(shards[1], [(0, 1)])
        holder.put(header_of(shards[1], data), [data], durable=True)
        assert bytes(holder.get(shards[1], [(0, 5000)])[0]) == data

    def test_the_listing_has_pages_in_order(self, holder: ShardHolder) -> None:
        """Every shard once, by its number, with its header but for the checksums."""
        data = content(100)
        shards = [ShardId(number, generation, 0) for number in (1, 2, 300, 2**64 - 1) for generation in (0, 255, 256)]
        for shard in reversed(shards):
            holder.put(header_of(shard, data), [data], durable=False)
        found: list[ShardHeader] = []
        while True:
            page = holder.listing(found[-1].shard if found else None, 5)
            assert page.complete and not page.bad and len(page.headers) <= 5
            found += page.headers
            if not page.more:
                break
        wanted = [msgspec.structs.replace(header_of(shard, data), crcs=b"") for shard in sorted(shards)]
        assert [msgspec.structs.replace(header, crcs=b"") for header in found] == wanted

    def test_the_status_counts(self, holder: ShardHolder) -> None:
        """It knows its volume, and what it holds."""
        before = holder.status()
        data = content(50_000)
        holder.put(header_of(ShardId(1, 1, 0), data), [data], durable=True)
        after = holder.status()
        assert (before.volume, before.shards, after.shards) == (VOLUME, 0, 1)
        assert before.disk == after.disk != ""
        assert after.used_bytes >= before.used_bytes + 50_000
        assert after.capacity_bytes >= after.free_bytes >= 0
        assert not after.read_only and after.complete

    def test_many_threads_use_it_at_once(self, holder: ShardHolder) -> None:
        """Nobody gets another's bytes."""
        wrong: list[object] = []

        def work(number: int) -> None:
            for generation in range(6):
                data, shard = content(3000 * number + generation, seed=number), ShardId(number, generation, 0)
                holder.put(header_of(shard, data), [data], durable=generation % 3 == 0)
                if bytes(holder.get(shard, [(0, len(data))])[0]) != data:
                    wrong.append(shard)
                if generation % 2:
                    holder.remove([shard])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert [header.shard.generation for header in holder.listing(None, 100).headers] == [0, 2, 4] * 6
