"""What every store must do, as tests.

Subclass `StoreContract` in a test module, supply `make_store`, `poke`, `peek` and `raw_keys`, and pytest runs it all:

    class TestMyStore(StoreContract):
        def make_store(self, folder):
            return open_store(f"mine://{folder}")

        def poke(self, store, key, data): ...   # write an object without the code under test
        def peek(self, store, key): ...         # read one likewise
        def raw_keys(self, store): ...          # every name that is there, temporary ones too

The suite looks around the store, not through it: what a put stored is read by `peek`, what a read finds was written by
`poke`.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from stoker.core.errors import AlreadyExistsError, NotFoundError, ShortReadError, StoreError, UsageError
from stoker.core.units import MiB
from stoker.storage.api import (
    Capabilities,
    KnowsResidency,
    Store,
    SupportsCache,
    SupportsMultipart,
    SupportsRename,
    SupportsVersion,
    SupportsWireCount,
    fill,
)
from stoker.storage.buffers import aligned_view, fresh_view
from stoker.storage.submit import ReadRequest, WriteRequest, read_many, write_many

SIZES: Final = (0, 1, 4095, 4096, 4097, MiB + 3)
BAD_KEYS: Final = ("", "/absolute", "../outside", "a/../b", "a//b", "a/./b", "a/", "nul\0byte", "..")
IO_MODES: Final = ("buffered", "direct", "memory", "null", "network")


def content(size_bytes: int, seed: int = 0) -> bytes:
    """Return reproducible bytes without a pattern."""
    return np.random.Generator(np.random.SFC64(seed)).bytes(size_bytes)


class StoreContract:
    """The suite. `keeps_content` is False for a store that keeps only sizes."""

    keeps_content = True

    def make_store(self, folder: Path) -> Store:
        """Return a new, empty store; `folder` is there to be used."""
        raise NotImplementedError

    def poke(self, store: Store, key: str, data: bytes) -> None:
        """Write an object, bypassing the code under test."""
        raise NotImplementedError

    def peek(self, store: Store, key: str) -> bytes:
        """Return an object's bytes, bypassing the code under test."""
        raise NotImplementedError

    def raw_keys(self, store: Store) -> set[str]:
        """Return every name in the store, temporary ones too, bypassing the code under test."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        """Make the store under test and close it."""
        with closing(self.make_store(tmp_path)) as store:
            yield store

    def same(self, got: Any, wanted: bytes) -> bool:
        """Tell whether content is what it should be, as far as the store keeps any."""
        return len(got) == len(wanted) and (not self.keeps_content or bytes(got) == wanted)

    # whole objects

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_put_stores_exactly_the_bytes_given(self, store: Store, size_bytes: int) -> None:
        data = content(size_bytes)
        info = store.put("folder/object", data)
        assert (info.key, info.size_bytes) == ("folder/object", size_bytes)
        assert self.same(self.peek(store, "folder/object"), data)

    @pytest.mark.parametrize("size_bytes", SIZES)
    def test_read_gives_exactly_the_bytes_stored(self, store: Store, size_bytes: int) -> None:
        data = content(size_bytes)
        self.poke(store, "folder/object", data)
        with store.open_read("folder/object") as reader:
            assert (reader.object_bytes, reader.range_bytes) == (size_bytes, size_bytes)
            into = fresh_view(size_bytes)
            fill(reader, into, where="folder/object")
        assert self.same(into, data)
        assert self.same(store.get_range("folder/object"), data)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_put_takes_any_buffer(self, store: Store, kind: Any) -> None:
        data = content(5000)
        store.put("object", kind(data))
        assert self.same(self.peek(store, "object"), data)

    def test_put_takes_a_buffer_at_an_odd_address(self, store: Store) -> None:
        data = content(3 * 4096 + 5)
        store.put("object", memoryview(b"x" + data)[1:])
        assert self.same(self.peek(store, "object"), data)

    def test_a_read_in_pieces_gives_the_same_bytes(self, store: Store) -> None:
        data = content(300_001)
        self.poke(store, "object", data)
        into = fresh_view(len(data))
        with store.open_read("object") as reader:
            for start in range(0, len(data), 70_001):
                reader.read_into(into[start : start + 70_001])
        assert self.same(into, data)

    def test_closing_a_reader_twice_or_unread_is_harmless(self, store: Store) -> None:
        self.poke(store, "object", content(100_000))
        reader = store.open_read("object")
        reader.close()
        reader.close()

    def test_overwriting_replaces_the_whole_object(self, store: Store) -> None:
        store.put("object", content(9000, seed=1))
        store.put("object", content(10, seed=2))
        assert self.same(self.peek(store, "object"), content(10, seed=2))
        assert store.stat("object").size_bytes == 10

    def test_a_version_changes_with_the_content(self, store: Store) -> None:
        before = store.put("object", content(10, seed=1))
        after = store.put("object", content(11, seed=2))
        assert before.version != after.version
        assert store.stat("object").version == after.version

    def test_a_reader_tells_the_version_it_reads(self, store: Store) -> None:
        info = store.put("object", content(10))
        with store.open_read("object") as reader:
            if not isinstance(reader, SupportsVersion) or not reader.version:
                pytest.skip("readers of this store know no version")
            assert reader.version == info.version

    # ranges

    @pytest.mark.parametrize(
        ("offset_bytes", "length_bytes"),
        [(0, 1), (0, 4096), (1, 4096), (4095, 2), (4096, 4096), (8191, 1809), (0, 10_000), (9999, 1)],
    )
    def test_a_range_gives_those_bytes_alone(self, store: Store, offset_bytes: int, length_bytes: int) -> None:
        data = content(10_000)
        self.poke(store, "object", data)
        wanted = data[offset_bytes : offset_bytes + length_bytes]
        assert self.same(store.get_range("object", offset_bytes, length_bytes), wanted)
        for into in (aligned_view(length_bytes), aligned_view(length_bytes + 1)[1:]):
            assert store.get_into("object", offset_bytes, into) == length_bytes
            assert self.same(into, wanted)

    def test_a_range_to_the_end(self, store: Store) -> None:
        data = content(10_000)
        self.poke(store, "object", data)
        with store.open_read("object", offset_bytes=4097) as reader:
            assert (reader.object_bytes, reader.range_bytes) == (10_000, 5903)
        assert self.same(store.get_range("object", 4097), data[4097:])

    @pytest.mark.parametrize(("offset_bytes", "length_bytes"), [(0, 0), (5, 0), (10, 0), (10, None)])
    def test_an_empty_range_is_empty(self, store: Store, offset_bytes: int, length_bytes: int | None) -> None:
        self.poke(store, "object", content(10))
        assert len(store.get_range("object", offset_bytes, length_bytes)) == 0

    @pytest.mark.parametrize(
        ("offset_bytes", "length_bytes"), [(0, 11), (5, 6), (10, 1), (11, None), (11, 0), (4096, 10)]
    )
    def test_a_range_beyond_the_end_is_an_error(
        self, store: Store, offset_bytes: int, length_bytes: int | None
    ) -> None:
        self.poke(store, "object", content(10))
        with pytest.raises(ShortReadError):
            store.get_range("object", offset_bytes, length_bytes)

    @pytest.mark.parametrize(("offset_bytes", "length_bytes"), [(-1, 1), (0, -1)])
    def test_a_negative_range_is_refused(self, store: Store, offset_bytes: int, length_bytes: int) -> None:
        self.poke(store, "object", content(10))
        with pytest.raises(UsageError):
            store.open_read("object", offset_bytes=offset_bytes, length_bytes=length_bytes)

    def test_reading_more_than_the_range_is_an_error(self, store: Store) -> None:
        self.poke(store, "object", content(10))
        with store.open_read("object", length_bytes=4) as reader, pytest.raises(ShortReadError):
            reader.read_into(fresh_view(5))

    def test_an_object_shorter_than_expected_is_an_error(self, store: Store) -> None:
        self.poke(store, "object", content(4096))
        with pytest.raises(ShortReadError):
            store.get_into("object", 0, fresh_view(4097))

    # names

    def test_a_missing_object_is_not_found(self, store: Store) -> None:
        for action in (store.open_read, store.stat, store.get_range):
            with pytest.raises(NotFoundError, match="folder/absent"):
                action("folder/absent")

    def test_a_folder_is_not_an_object(self, store: Store) -> None:
        self.poke(store, "folder/object", b"x")
        with pytest.raises(NotFoundError):
            store.stat("folder")
        with pytest.raises(NotFoundError):
            store.open_read("folder")
        with pytest.raises(NotFoundError):
            store.stat("folder/object/below")

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_a_key_that_leaves_the_root_is_refused(self, store: Store, key: str) -> None:
        for action in (store.open_read, store.stat, store.delete, lambda k: store.put(k, b"x")):
            with pytest.raises(UsageError):
                action(key)
        assert self.raw_keys(store) == set()

    @pytest.mark.parametrize("prefix", ["../", "/absolute", "a/../b"])
    def test_a_prefix_that_leaves_the_root_is_refused(self, store: Store, prefix: str) -> None:
        with pytest.raises(UsageError):
            list(store.list(prefix))

    def test_keys_may_hold_any_letters(self, store: Store) -> None:
        keys = sorted(["müller/größe 1", "日本/データ", "a+b&c=d", "100%", "x#y?z", "~tilde", "emoji/🚂"])
        for number, key in enumerate(keys):
            store.put(key, content(number + 1, seed=number))
        assert self.raw_keys(store) == set(keys)
        assert [(info.key, info.size_bytes) for info in store.list()] == [(k, n + 1) for n, k in enumerate(keys)]
        assert self.same(store.get_range(keys[3]), content(4, seed=3))

    # listing

    def test_a_listing_is_in_key_order_with_sizes(self, store: Store) -> None:
        keys = ["a/b", "a-b", "a.b", "a/c/d", "a0", "B", "b", "é"]
        for number, key in enumerate(keys):
            self.poke(store, key, content(number))
        listed = list(store.list())
        assert [info.key for info in listed] == sorted(keys)
        assert {info.key: info.size_bytes for info in listed} == {key: n for n, key in enumerate(keys)}

    @pytest.mark.parametrize(
        "prefix", ["", "t", "train/", "train/0", "train/00/a", "train/00/ab", "train/1", "x", "x/"]
    )
    def test_a_prefix_is_the_beginning_of_the_key(self, store: Store, prefix: str) -> None:
        keys = ["train/00/a", "train/00/b", "train/01/a", "train-old/a", "test/a", "zebra"]
        for key in keys:
            self.poke(store, key, b"x")
        assert [info.key for info in store.list(prefix)] == sorted(k for k in keys if k.startswith(prefix))

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert list(store.list()) == []
        assert list(store.list("absent/")) == []

    def test_stat_and_list_agree(self, store: Store) -> None:
        store.put("object", content(17))
        assert list(store.list()) == [store.stat("object")]

    # deleting and conditions

    def test_deleting_twice_is_not_an_error(self, store: Store) -> None:
        self.poke(store, "folder/object", b"x")
        self.poke(store, "folder/other", b"x")
        store.delete("folder/object")
        store.delete("folder/object")
        store.delete("never/was")
        assert self.raw_keys(store) == {"folder/other"}

    def test_put_if_absent_never_replaces(self, store: Store) -> None:
        store.put("object", content(10, seed=1), if_absent=True)
        with pytest.raises(AlreadyExistsError, match="object"):
            store.put("object", content(20, seed=2), if_absent=True)
        assert self.same(self.peek(store, "object"), content(10, seed=1))
        assert self.raw_keys(store) == {"object"}

    def test_of_many_conditional_puts_one_wins(self, store: Store) -> None:
        def attempt(number: int) -> bool:
            try:
                store.put("object", content(100, seed=number), if_absent=True)
            except AlreadyExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, range(8)))
        assert won.count(True) == 1
        assert self.same(self.peek(store, "object"), content(100, seed=won.index(True)))

    # many at once

    def test_many_readers_and_writers_do_not_disturb_each_other(self, store: Store) -> None:
        wanted = {f"object/{number}": content(5000 + number, seed=number) for number in range(24)}

        def both(key: str) -> bool:
            store.put(key, wanted[key])
            return self.same(store.get_range(key), wanted[key])

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(both, wanted))
        assert [info.key for info in store.list()] == sorted(wanted)

    def test_a_reader_sees_the_old_object_or_the_new_one(self, store: Store) -> None:
        versions = [content(50_000 + number, seed=number) for number in range(2)]
        store.put("object", versions[0])
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                for data in versions:
                    store.put("object", data)

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                for _ in range(20):
                    got = store.get_range("object")
                    assert any(self.same(got, data) for data in versions)
            finally:
                stop.set()
            writing.result()

    @pytest.mark.parametrize("ordered", [True, False])
    def test_read_many_gives_every_object_once(self, store: Store, ordered: bool) -> None:
        wanted = {f"object/{number:02}": content(1000 * number, seed=number) for number in range(20)}
        for key, data in wanted.items():
            self.poke(store, key, data)
        requests = [ReadRequest(key, tag=number) for number, key in enumerate(wanted)]
        results = list(read_many(store, requests, ordered=ordered, in_flight_max=4, in_flight_bytes_max=40_000))
        assert [result.error for result in results] == [None] * 20
        tags = [result.request.tag for result in results]
        assert (tags if ordered else sorted(tags, key=str)) == (
            list(range(20)) if ordered else sorted(range(20), key=str)
        )
        assert all(self.same(result.data, wanted[result.request.key]) for result in results)

    def test_write_many_stores_every_object(self, store: Store) -> None:
        wanted = {f"object/{number}": content(1000 + number, seed=number) for number in range(10)}
        results = list(write_many(store, (WriteRequest(key, data) for key, data in wanted.items()), in_flight_max=4))
        assert [result.error for result in results] == [None] * 10
        assert self.raw_keys(store) == set(wanted)
        assert all(self.same(self.peek(store, key), data) for key, data in wanted.items())

    # capabilities

    def test_the_facts_about_the_store_are_well_formed(self, store: Store) -> None:
        facts = store.capabilities
        assert isinstance(facts, Capabilities)
        assert facts.io_mode in IO_MODES
        assert facts.alignment_bytes >= 1
        assert facts.in_flight >= 1
        assert isinstance(store, Store)
        assert store.url

    def test_parts_are_put_as_one_object(self, store: Store) -> None:
        if not isinstance(store, SupportsMultipart):
            pytest.skip("the store does not put parts")
        parts = [content(size, seed=size) for size in (0, 1, 70_000, 4096, 5)]
        info = store.put_parts("folder/object", (part for part in parts))
        assert info.size_bytes == sum(map(len, parts))
        assert self.same(self.peek(store, "folder/object"), b"".join(parts))
        store.put_parts("empty", [])
        assert self.same(self.peek(store, "empty"), b"")
        with pytest.raises(AlreadyExistsError):
            store.put_parts("folder/object", parts[:2], if_absent=True)
        assert self.raw_keys(store) == {"folder/object", "empty"}

    def test_parts_that_fail_leave_nothing(self, store: Store) -> None:
        if not isinstance(store, SupportsMultipart):
            pytest.skip("the store does not put parts")

        def parts() -> Iterator[bytes]:
            yield content(100_000)
            raise FileNotFoundError("the caller's own")

        with pytest.raises(FileNotFoundError, match="the caller's own"):
            store.put_parts("object", parts())
        assert self.raw_keys(store) == set()

    def test_a_rename_moves_the_object(self, store: Store) -> None:
        if not isinstance(store, SupportsRename):
            pytest.skip("the store does not rename")
        store.put("before", content(10, seed=1))
        store.put("folder/after", content(20, seed=2))
        store.rename("before", "folder/after")
        assert self.raw_keys(store) == {"folder/after"}
        assert self.same(self.peek(store, "folder/after"), content(10, seed=1))
        with pytest.raises(NotFoundError):
            store.rename("before", "elsewhere")
        with pytest.raises(UsageError):
            store.rename("folder/after", "../outside")

    def test_the_cache_can_be_asked_and_emptied(self, store: Store) -> None:
        if not isinstance(store, SupportsCache):
            pytest.skip("the store knows nothing of a cache")
        data = content(64 * 1024)
        self.poke(store, "object", data)
        known = store.cached_bytes("object")
        assert known is None or 0 <= known <= len(data)
        store.evict("object")
        if store.capabilities.cache_evictable and known is not None:
            assert store.cached_bytes("object") == 0
        assert self.same(store.get_range("object"), data)
        with pytest.raises(NotFoundError):
            store.cached_bytes("absent")

    def test_a_reader_that_knows_the_cache_tells_before_it_reads(self, store: Store) -> None:
        data = content(64 * 1024)
        self.poke(store, "object", data)
        with store.open_read("object", offset_bytes=4096, length_bytes=8192) as reader:
            if not isinstance(reader, KnowsResidency):
                assert store.capabilities.io_mode not in ("buffered", "direct")
                pytest.skip("the store knows nothing of a cache")
            known = reader.cached_bytes()
            assert known is None or 0 <= known <= 8192
        if not isinstance(store, SupportsCache) or not store.capabilities.cache_evictable or known is None:
            return
        store.evict("object")
        with store.open_read("object", offset_bytes=4096, length_bytes=8192) as reader:
            assert isinstance(reader, KnowsResidency)
            assert reader.cached_bytes() == 0
            reader.read_into(fresh_view(8192))
            assert reader.cached_bytes() == (8192 if store.capabilities.io_mode == "buffered" else 0)

    def test_received_bytes_are_counted(self, store: Store) -> None:
        if not isinstance(store, SupportsWireCount):
            pytest.skip("the store has no network")
        self.poke(store, "object", content(100_000))
        before_bytes = store.received_body_bytes
        store.get_range("object", 10, 70_000)
        assert store.received_body_bytes - before_bytes == 70_000

    def test_nothing_temporary_is_left(self, store: Store) -> None:
        for number in range(3):
            store.put("folder/object", content(5000, seed=number))
        assert self.raw_keys(store) == {"folder/object"}

    def test_closing_twice_is_harmless(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.put("object", b"x")
        store.close()
        store.close()

    def test_errors_name_the_object(self, store: Store) -> None:
        with pytest.raises(StoreError) as caught:
            store.stat("folder/absent")
        assert caught.value.where.endswith("folder/absent")
