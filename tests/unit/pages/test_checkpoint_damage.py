"""Checkpoints that were cut, flipped or half published: refused, and what is older is used."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker.pages import ChecksumError, FormatError, PagesError, State, Store
from stoker.pages.disk import OsDisk
from stoker.pages.errors import CorruptPages
from stoker.pages.history import CheckpointFacts, latest_valid, read_checkpoint, write_checkpoint
from stoker.pages.history.checkpoint_read import list_checkpoints, open_checkpoint, prune_checkpoints
from stoker.pages.images import PageImage, encode_meta
from stoker.testing.crash_states import CrashDisk

SMALL = {"size_bytes": 1 << 20, "pages_max": 64, "log_bytes": 64 << 10, "segment_bytes": 64 << 10}
FOLDER = Path("/checkpoints")


def images(lsn: int, count: int = 4, size: int = 300) -> list[PageImage]:
    """Return pages whose even ones change with the LSN."""
    made = []
    for page in range(1, count + 1):
        when = lsn if page % 2 == 0 else 1
        data = np.random.default_rng(page * 1000 + when).integers(0, 255, size * page, np.uint8)
        if page % 3 == 0:
            data[:] = page  # compresses
        made.append(PageImage(page, when, when, data, meta=encode_meta({"name": f"p{page}"})))
    return made


def facts(lsn: int, parent: int = 0) -> CheckpointFacts:
    return CheckpointFacts(bytes(16), lsn, 1_000 + lsn, parent_lsn=parent, marks={"one": 1}, sources={7: "seven"})


def digest(lsn: int, count: int = 4) -> str:
    return State.of(images(lsn, count), lsn).digest()


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, bytes]:
    """Two checkpoints in a folder; the newer one's path and bytes."""
    write_checkpoint(tmp_path, images(5), facts(5))
    path = write_checkpoint(tmp_path, images(9), facts(9)).path
    return path, path.read_bytes()


def is_refused(path: Path) -> bool:
    """Tell whether reading the checkpoint is refused as damage, and the older one taken in its place."""
    with pytest.raises((ChecksumError, FormatError)):
        read_checkpoint(path)
    state, wrong = latest_valid(path.parent)
    return state.lsn == 5 and state.digest() == digest(5) and len(wrong) == 1


def test_each_truncation_is_refused(two: tuple[Path, bytes]) -> None:
    path, data = two
    for length in [*range(0, len(data), 67), *range(len(data) - 130, len(data), 3)]:
        path.write_bytes(data[:length])
        assert is_refused(path), length


@pytest.mark.slow
def test_a_truncation_at_every_byte_is_refused(two: tuple[Path, bytes]) -> None:
    path, data = two
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert is_refused(path), length


def is_refused_or_harmless(path: Path) -> bool:
    """Some bits say nothing: those that fill up to multiples of 64, a few in the headers of zstd."""
    try:
        return read_checkpoint(path).digest() == digest(9)
    except CorruptPages:
        return is_refused(path)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]


def test_flipped_bits_are_found_or_have_no_effect(two: tuple[Path, bytes]) -> None:
    path, data = two
    for at in random.Random(1).sample(range(len(data)), 300):
        path.write_bytes(flipped(data, at))
        assert is_refused_or_harmless(path), at


def test_flipped_bits_in_the_beginning_the_index_and_the_end_are_found(two: tuple[Path, bytes]) -> None:
    path, data = two
    index_at, index_bytes = (int.from_bytes(data[-128 + at : -120 + at], "little") for at in (8, 16))
    ends = [
        *range(64),
        *range(4090, 4096),
        *range(index_at, index_at + index_bytes),
        *range(len(data) - 128, len(data)),
    ]
    for at in ends[::3]:
        path.write_bytes(flipped(data, at))
        assert is_refused(path), at


@pytest.mark.slow
def test_a_flipped_bit_in_every_byte_is_found_or_has_no_effect(two: tuple[Path, bytes]) -> None:
    path, data = two
    for at in range(len(data)):
        path.write_bytes(flipped(data, at))
        assert is_refused_or_harmless(path), at


def test_a_store_goes_on_from_the_older_checkpoint_and_the_log(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(3000, name="a")
        for value in range(30):
            page.write(np.full(3000, value, np.uint8))
            if value in (10, 20):
                store.checkpoint(incremental=value == 20)
        last, epoch = bytes(page.read()), page.epoch
        newest = tmp_path / "s" / "checkpoints" / f"checkpoint-{store.journal.checkpoints()[-1]:020d}.stkc"
    data = newest.read_bytes()
    for damaged in (data[: len(data) // 2], flipped(data, 100), b""):
        newest.write_bytes(damaged)
        with Store.open(tmp_path / "s") as store:
            assert bytes(store.page("a").read()) == last
            assert store.page("a").epoch == epoch
            assert len(store.verify()) == 1, "the damaged checkpoint, and nothing else"


def test_a_damaged_checkpoint_does_not_stand_in_the_way_of_the_next(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        page = store.allocate(3000, name="a")
        store.checkpoint()
        damaged = store.checkpoint().path
        damaged.write_bytes(flipped(damaged.read_bytes(), 100))
        for value in range(3):
            page.write(np.full(3000, value + 1, np.uint8))
            store.checkpoint(incremental=True)
        assert not damaged.exists(), "it is older than those that are kept"
        assert store.verify() == []


def test_what_is_kept_of_a_chain_is_whole(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", **SMALL) as store:
        pages = [store.allocate(4000, name=f"p{index}") for index in range(4)]
        store.checkpoint()
        for round_ in range(8):
            for page in pages[round_ % 3 :: 2]:
                page.write(np.full(4000, round_ + 1, np.uint8))
            store.checkpoint(incremental=True, keep=1)
            assert store.verify() == []
        assert len(store.journal.checkpoints()) < 9


def chain(disk: CrashDisk) -> Iterator[int]:
    """Write checkpoints, each incremental on the one before, and prune; yield the LSN that is published."""
    parent = None
    for lsn in (3, 5, 8):
        path = FOLDER / f"checkpoint-{lsn:020d}.stkc"
        write_checkpoint(FOLDER, images(lsn, 5), facts(lsn, parent.facts.lsn if parent else 0),
                         parent=parent.index if parent else None, disk=disk)  # fmt: skip
        parent = open_checkpoint(path, disk)
        yield lsn
    write_checkpoint(FOLDER, images(9, 5), facts(9), disk=disk)
    yield 9
    prune_checkpoints(FOLDER, 1, disk)
    yield 9


def broken_promises(disk: CrashDisk, at_each: int) -> tuple[int, list[str]]:
    """Return how many disks a power loss may leave, and of which the newest sound checkpoint is not what it must be."""
    published = [(0, 0), *((disk.step, lsn) for lsn in chain(disk))]
    wrong, states = [], 0
    for crashed in disk.crash_states(1, at_each):
        states += 1
        least = max(lsn for step, lsn in published if step <= crashed.step)
        try:
            state, _ = latest_valid(FOLDER, disk=crashed.disk)
        except Exception as error:
            wrong.append(f"step {crashed.step}: {error!r}")
            continue
        if state.lsn < least:
            wrong.append(f"step {crashed.step}: LSN {state.lsn} though {least} was published")
        elif state.lsn and state.digest() != digest(state.lsn, 5):
            wrong.append(f"step {crashed.step}: other pages than those of LSN {state.lsn}")
    return states, wrong


def test_whatever_a_power_loss_leaves_the_published_checkpoint_is_there() -> None:
    states, wrong = broken_promises(CrashDisk(), 60)
    assert not wrong, wrong[:5]
    assert states > 120


def test_the_enumerator_finds_a_checkpoint_that_is_not_synced() -> None:
    class NoSync(CrashDisk):
        def sync(self, handle: int, *, full: bool = False) -> None:
            """Say that it synced."""

    assert broken_promises(NoSync(), 30)[1]


def test_a_checkpoint_is_never_ahead_of_the_durable_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power loss would give its LSNs to other commits, which the next opening would then leave out."""
    synced = [0]
    plain_rename, plain_sync = OsDisk.rename, OsDisk.sync
    with Store.open(tmp_path / "s", durability="none", **SMALL) as store:
        page = store.allocate(64, name="a")

        def sync(self: OsDisk, handle: int, *, full: bool = False) -> None:
            plain_sync(self, handle, full=full)
            synced.append(store.lsn)

        def rename(self: OsDisk, old: Path, new: Path) -> None:
            if new.suffix == ".stkc":
                assert store.durable_lsn >= int(new.name[11:31]), "published before the log was synced"
                synced.append(-1)
            plain_rename(self, old, new)

        monkeypatch.setattr(OsDisk, "sync", sync)
        monkeypatch.setattr(OsDisk, "rename", rename)
        page.write(b"x" * 64)
        store.checkpoint()
        assert -1 in synced


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-00000000000000000009.stkc"
    for data in (b"", b"x" * 5000, bytes(8192)):
        path.write_bytes(data)
        with pytest.raises(CorruptPages):
            read_checkpoint(path)
    assert list_checkpoints(tmp_path) == [9]
    with pytest.raises(PagesError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "checkpoint-00000000000000000010.stkc")
