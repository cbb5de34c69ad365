"""A cache over a real folder: entries are placed, demoted, deleted, read where they lie, verified and cleaned up."""

import csv
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from kv_plans import tiny_plan

from stoker.core.errors import CorruptError, PreflightError
from stoker.core.kvcache import CPU, STORAGE, KvPlan
from stoker.kv.account import Account
from stoker.kv.cache import KvCache, Tier
from stoker.kv.content import HEADER_BYTES
from stoker.kv.memory import MemoryTier
from stoker.kv.storage_tier import MARKER, StorageTier
from stoker.kv.trace_log import TraceLog
from stoker.storage.api import Store
from stoker.storage.buffers import BufferPool
from stoker.storage.opening import open_store

TOKENS = 256
ENTRY = HEADER_BYTES + TOKENS * 256


@pytest.fixture(params=["file", "direct"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"{request.param}://{tmp_path}?fsync=none", create=True)
    yield opened
    opened.close()


def cache_on(store: Store, plan: KvPlan, storage_bytes: int) -> tuple[KvCache, StorageTier]:
    pool = BufferPool(64 << 20)
    tier = StorageTier(store, "rank_0", pool, plan.piece_bytes)
    tiers = [Tier(CPU, MemoryTier(plan.piece_bytes), plan.cpu_bytes)] if plan.cpu_bytes else []
    return KvCache(plan, [*tiers, Tier(STORAGE, tier, storage_bytes)], pool, content_seed=3), tier


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "rank_0").iterdir())


def test_bytes_of_an_entry() -> None:
    assert tiny_plan().token_bytes == 128
    assert tiny_plan(dtype="float32").token_bytes == 256


def test_an_entry_is_a_file_that_numpy_reads_and_is_read_back_whole(store: Store, tmp_path: Path) -> None:
    plan = tiny_plan(dtype="float32", verify_ratio=0.5)
    cache, tier = cache_on(store, plan, 10 * ENTRY)
    tier.begin("run")
    assert cache.write("conv_1_0_turn_0", TOKENS, "Prefill") is not None
    assert cache.write("conv_1_0_turn_0", TOKENS, "Prefill") is None  # it is there
    array = np.load(tmp_path / "rank_0/conv_1_0_turn_0.npy", allow_pickle=False)
    assert array.shape == (2, 2, TOKENS, 2, 8) and array.dtype == np.float32
    for _ in range(20):
        assert cache.read("conv_1_0_turn_0", "Decode") is not None
    assert cache.read("nobody", "Decode") is None
    account, counts = cache.account, cache.account.counts
    assert account.tiers[STORAGE].reads == 20 and account.tiers[STORAGE].read_bytes == 20 * ENTRY
    assert counts.stamped_bytes + counts.verified_bytes == 20 * ENTRY
    assert 0 < counts.verified_bytes < 20 * ENTRY
    assert account.ledger.requested_bytes == 20 * ENTRY and account.ledger.written_bytes == ENTRY
    assert set(account.encoded()) == {
        f"storage_{operation}{part}" for operation in ("read", "write") for part in ("", "_device", "_host")
    }


def test_entries_fall_from_memory_to_storage_and_out(store: Store, tmp_path: Path) -> None:
    plan = tiny_plan(dtype="float32", cpu_bytes=int(3.9 * ENTRY))
    cache, tier = cache_on(store, plan, 2 * ENTRY)
    tier.begin("run")
    for number in range(8):
        assert cache.write(f"user_0_req_{number}", TOKENS, "Prefill") is not None
    counts = cache.account.tiers
    assert counts[CPU].writes == 8 and counts[STORAGE].writes == 0
    assert counts[CPU].demotions == counts[STORAGE].demote_writes == 5
    assert counts[STORAGE].deletes == 3 and cache.account.counts.lost_entries == 3
    assert files(tmp_path) == [MARKER, "user_0_req_3.npy", "user_0_req_4.npy"]
    found = {number: cache.read(f"user_0_req_{number}", "Decode") for number in range(8)}
    assert [done.tier if done else None for done in found.values()] == [None] * 3 + [STORAGE] * 2 + [CPU] * 3
    cache.fill_levels()
    assert (counts[STORAGE].entries, counts[STORAGE].bytes, counts[CPU].entries) == (2, 2 * ENTRY, 3)


def test_bytes_of_another_entry_are_told(store: Store, tmp_path: Path) -> None:
    cache, tier = cache_on(store, tiny_plan(dtype="float32"), 10 * ENTRY)
    tier.begin("run")
    for number in (0, 1):
        cache.write(f"user_0_req_{number}", TOKENS, "Prefill")
    other = (tmp_path / "rank_0/user_0_req_1.npy").read_bytes()
    (tmp_path / "rank_0/user_0_req_0.npy").write_bytes(other)
    with pytest.raises(CorruptError, match="user_0_req_0"):
        cache.read("user_0_req_0", "Decode")


def test_many_threads_leave_the_counts_and_the_folder_in_agreement(store: Store, tmp_path: Path) -> None:
    plan = tiny_plan(cpu_bytes=4 * ENTRY, allocations_max=3)
    cache, tier = cache_on(store, plan, 12 * ENTRY)
    tier.begin("run")
    errors: list[BaseException] = []

    def work(user: int) -> None:
        try:
            for number in range(30):
                cache.write(f"user_{user}_req_{number}", 20 + 37 * number % 400, "Prefill")
                for back in range(0, 6, 2):
                    cache.read(f"user_{user}_req_{number - back}", "Decode")
                    cache.read(f"user_{(user + 1) % 6}_req_{number}", "Decode")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(user,)) for user in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    cache.fill_levels()
    counts = cache.account.tiers
    there = [path for path in (tmp_path / "rank_0").iterdir() if path.suffix == ".npy"]
    assert sum(path.stat().st_size for path in there) == counts[STORAGE].bytes <= 12 * ENTRY
    assert len(there) == counts[STORAGE].entries
    arrived, left = counts[STORAGE].writes + counts[STORAGE].demote_writes, counts[STORAGE].deletes
    assert arrived - left == len(there)
    assert cache.clear() == len(there)
    tier.end()
    assert not (tmp_path / "rank_0").exists()


def test_foreign_files_stay_and_are_never_overwritten(store: Store, tmp_path: Path) -> None:
    (tmp_path / "rank_0").mkdir()
    (tmp_path / "rank_0/theirs.npy").write_bytes(b"theirs")
    cache, tier = cache_on(store, tiny_plan(), 10 * ENTRY)
    assert tier.begin("run") == 0
    cache.write("user_0_req_0", 10, "Prefill")
    cache.clear()
    tier.end()
    assert files(tmp_path) == ["theirs.npy"]
    (tmp_path / "rank_0/user_0_req_0.npy").write_bytes(b"theirs, too")
    with pytest.raises(PreflightError, match="without our mark"):
        tier.begin("run")
    assert (tmp_path / "rank_0/user_0_req_0.npy").read_bytes() == b"theirs, too"


def test_what_a_killed_run_left_is_removed_by_the_next(store: Store, tmp_path: Path) -> None:
    cache, tier = cache_on(store, tiny_plan(), 10 * ENTRY)
    tier.begin("killed")
    for number in range(3):
        cache.write(f"conv_0_{number}_turn_0", 10, "Prefill")
    (tmp_path / "rank_0/theirs.bin").write_bytes(b"x")
    _, again = cache_on(store, tiny_plan(), 10 * ENTRY)
    assert again.begin("next") == 3
    assert files(tmp_path) == [MARKER, "theirs.bin"]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.zst"])
def test_the_trace_tells_every_read_and_write(store: Store, tmp_path: Path, name: str) -> None:
    plan = tiny_plan(cpu_bytes=2 * ENTRY)
    cache, tier = cache_on(store, plan, 2 * ENTRY)
    tier.begin("run")
    path = tmp_path / name
    with TraceLog(str(path)) as trace:
        cache.begin(Account([CPU, STORAGE]), trace)
        for number in range(8):
            cache.write(f"user_0_req_{number}", TOKENS, "Prefill")
            cache.read(f"user_0_req_{number}", "Decode")
    data = path.read_bytes()
    if name.endswith("zst"):
        data = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
    rows: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(data.decode())))
    assert list(rows[0]) == ["Timestamp", "Operation", "Object_Size_Bytes", "Tier", "Key", "Phase"]
    told = {(row["Operation"], row["Tier"], row["Phase"]) for row in rows}
    assert {("Write", "Tier-1", "Prefill"), ("Read", "Tier-1", "Decode"), ("Write", "Tier-2", "Evict")} <= told
    decoded = [row for row in rows if row["Phase"] == "Decode"]
    assert sum(int(row["Object_Size_Bytes"]) for row in decoded) == cache.account.tiers[CPU].read_bytes
