"""A split is made whole, once, by any number of ranks; what is not ours is never touched."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import CorruptError, NoSpaceError, PreflightError, TransientError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.seed import run_id
from stoker.formats.api import FORMATS
from stoker.formats.ranges import MemorySource
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.generate import GenerateOptions, commit, generate
from stoker.loader.dataset.manifest_file import load_manifest
from stoker.loader.dataset.naming import file_key, manifest_key, marker_key, parts_prefix
from stoker.loader.dataset.progress import Progress
from stoker.loader.dataset.recipe import read_options
from stoker.loader.dataset.verify import verify
from stoker.storage.api import Buffer, ObjectInfo, Store
from stoker.storage.layers.layer import Layer
from stoker.storage.opening import open_store

SMALL = DatasetSpec("npz", 10, record_dims=(32, 33))


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store(f"mem://{run_id()}")
    yield opened
    for info in list(opened.list()):
        opened.delete(info.key)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"file://{tmp_path}/data?fsync=none", create=True)
    yield opened
    opened.close()


def contents(store: Store, prefix: str = "train/") -> dict[str, str]:
    return {info.key: hashlib.sha256(store.get_range(info.key)).hexdigest() for info in store.list(prefix)}


def test_a_split_is_made_whole(store: Store) -> None:
    report = generate(store, SMALL)
    assert (report.files_made, report.files_kept, report.complete) == (10, 0, True)
    assert sorted(info.key for info in store.list()) == [
        manifest_key("train"),
        marker_key("train"),
        *(file_key(SMALL, index) for index in range(10)),
    ]
    manifest = load_manifest(store, "train")
    assert len(manifest) == 10
    assert manifest.spec == SMALL
    assert manifest.total_bytes == report.bytes_made == 10 * (32 * 33 + 498)
    assert verify(store, manifest).good


@pytest.mark.parametrize(
    ("name", "samples"), [("npz", 3), ("npy", 1), ("tfrecord", 5), ("raw", 4), ("indexed_binary", 6), ("csv", 2)]
)
def test_what_is_read_back_is_what_was_generated(store: Store, name: str, samples: int) -> None:
    spec = DatasetSpec(name, 3, samples, record_length_bytes=900, record_length_stdev_bytes=200)
    generate(store, spec)
    manifest = open_manifest(store)
    reader = FORMATS.load(name)
    for index, key in enumerate(manifest.keys):
        sides = {suffix: store.get_range(reader.side_key(key, suffix)) for suffix in manifest.side_suffixes}
        data = store.get_range(key)
        source = MemorySource(data, {suffix: bytes(side) for suffix, side in sides.items()})
        layout = reader.layout(source, read_options(manifest, index))
        assert sum(extent.samples for extent in layout.extents) == manifest.samples[index] == samples
        for extent in layout.extents:
            block = reader.decode(memoryview(b"".join(source.read(*span) for span in extent.ranges)), extent, layout)
            assert np.asarray(block.sample(0)).size > 0


def test_the_same_spec_gives_the_same_bytes_whoever_makes_them(store: Store, folder: Store) -> None:
    generate(store, SMALL)
    for rank in (2, 0, 1):
        report = generate(folder, SMALL, GenerateOptions(rank=rank, world=3, threads=2))
        assert not report.complete
    commit(folder, SMALL)
    assert contents(store) == contents(folder)
    sums = [load_manifest(place, "train").checksums for place in (store, folder)]
    assert sums[0] is not None
    assert np.array_equal(sums[0], sums[1])


def test_again_makes_nothing(store: Store) -> None:
    generate(store, SMALL)
    before = {info.key: info.version for info in store.list()}
    report = generate(store, SMALL)
    assert (report.files_made, report.files_adopted, report.files_kept, report.complete) == (0, 0, 10, True)
    assert {info.key: info.version for info in store.list()} == before


def test_options_given_as_tuples_are_the_same_options(store: Store) -> None:
    spec = DatasetSpec("raw", 3, record_dims=(4, 5), options={"shape": (4, 5)})
    generate(store, spec)
    assert generate(store, spec).files_kept == 3


def test_what_was_deleted_or_cut_is_made_again_and_nothing_else(store: Store) -> None:
    generate(store, SMALL)
    whole = contents(store)
    store.delete(file_key(SMALL, 3))
    store.put(file_key(SMALL, 7), store.get_range(file_key(SMALL, 7), 0, 100))
    before = {info.key: info.version for info in store.list("train/")}
    report = generate(store, SMALL)
    assert (report.files_made, report.files_kept) == (2, 8)
    assert contents(store) == whole
    kept = [key for key in before if key not in (file_key(SMALL, 3), file_key(SMALL, 7))]
    assert all(store.stat(key).version == before[key] for key in kept)


def test_a_trusted_journal_is_not_held_against_the_store(store: Store) -> None:
    generate(store, SMALL)
    store.delete(file_key(SMALL, 3))
    assert generate(store, SMALL, GenerateOptions(trust_journal=True)).files_made == 0
    assert generate(store, SMALL).files_made == 1


def test_a_lost_companion_is_made_again(store: Store) -> None:
    spec = DatasetSpec("tfrecord", 4, 3, record_dims=(20, 20))
    generate(store, spec)
    index = "index/train/img_2_of_4.tfrecord.idx"
    side = bytes(store.get_range(index))
    store.delete(index)
    generate(store, spec)
    assert bytes(store.get_range(index)) == side


def test_files_without_a_record_are_compared_and_taken_over(store: Store) -> None:
    generate(store, SMALL)
    store.delete(manifest_key("train"))
    wrong = bytearray(store.get_range(file_key(SMALL, 4)))
    wrong[500] ^= 1
    store.put(file_key(SMALL, 4), wrong)
    report = generate(store, SMALL)
    assert (report.files_made, report.files_adopted) == (1, 9)
    assert verify(store, load_manifest(store, "train")).good


@pytest.mark.parametrize("name", FORMATS.names())
def test_every_format_encodes_the_same_bytes_again(store: Store, name: str) -> None:
    samples = 3 if FORMATS.load(name).multi_sample else 1
    spec = DatasetSpec(name, 3, samples, record_length_bytes=900, record_length_stdev_bytes=200)
    generate(store, spec)
    store.delete(manifest_key("train"))
    report = generate(store, spec)
    assert (report.files_made, report.files_adopted) == (0, 3)
    assert verify(store, open_manifest(store)).good


def test_a_damaged_manifest_or_part_costs_only_time(store: Store) -> None:
    generate(store, SMALL)
    store.put(manifest_key("train"), bytes(store.get_range(manifest_key("train")))[:-3])
    store.put(parts_prefix("train") + "x", b"not a part")
    report = generate(store, SMALL)
    assert report.files_adopted == 10
    assert any("manifest was not used" in note for note in report.notes)
    assert any("train.parts/x is damaged" in note for note in report.notes)
    assert verify(store, open_manifest(store)).good


def test_another_spec_in_the_same_place_is_refused_naming_the_fields(store: Store) -> None:
    generate(store, SMALL)
    before = contents(store, "")
    other = DatasetSpec("npz", 12, record_dims=(32, 33), content_seed=11)
    with pytest.raises(UsageError, match=r"expected files 12, content_seed 11, got files 10, content_seed 10.*--force"):
        generate(store, other)
    with pytest.raises(UsageError, match="files_before"):
        generate(store, SMALL, GenerateOptions(files_before=5))
    assert contents(store, "") == before


def test_force_removes_the_old_split_first(store: Store) -> None:
    generate(store, SMALL)
    other = DatasetSpec("raw", 4, record_dims=(8, 8))
    assert generate(store, other, GenerateOptions(force=True)).files_made == 4
    assert [info.key for info in store.list("train/")] == [file_key(other, index) for index in range(4)]
    with pytest.raises(UsageError, match="one rank cannot remove"):
        generate(store, SMALL, GenerateOptions(force=True, world=2))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("foreign", ["train/holiday.jpg", "index/train/other.idx"])
def test_files_of_others_are_refused_and_left_alone(store: Store, foreign: str, force: bool) -> None:
    store.put(foreign, b"mine")
    spec = DatasetSpec("tfrecord", 4, 3, record_dims=(20, 20))
    with pytest.raises(UsageError, match="files that we did not make"):
        generate(store, spec, GenerateOptions(force=force))
    assert [info.key for info in store.list()] == [foreign]


def test_train_and_valid_live_side_by_side(store: Store) -> None:
    spec = DatasetSpec("npz", 4, record_length_bytes=900, record_length_stdev_bytes=200)
    valid = DatasetSpec("npz", 2, record_length_bytes=900, record_length_stdev_bytes=200, split="valid")
    generate(store, spec)
    generate(store, valid, GenerateOptions(files_before=4))
    manifest = open_manifest(store, "valid")
    assert manifest.files_before == 4
    assert verify(store, manifest).good
    assert verify(store, open_manifest(store, "train")).good


def test_commit_needs_every_file(store: Store) -> None:
    with pytest.raises(UsageError, match="never begun"):
        commit(store, SMALL)
    generate(store, SMALL, GenerateOptions(rank=1, world=2))
    with pytest.raises(PreflightError, match=r"img_00_of_10.npz.*expected 10 files, got 5"):
        commit(store, SMALL)
    with pytest.raises(PreflightError, match="not completed"):
        open_manifest(store)
    generate(store, SMALL)
    assert verify(store, open_manifest(store)).good


def test_progress_ends_at_the_whole(store: Store) -> None:
    seen: list[Progress] = []
    generate(store, SMALL, GenerateOptions(verify_after=True), progress=seen.append)
    made = [one for one in seen if one.phase == "make"][-1]
    assert (made.files_done, made.files_total, made.bytes_done) == (10, 10, made.bytes_total)
    assert made.eta_seconds == 0
    assert seen[-1].phase == "verify"
    assert seen[-1].files_done == 10


def test_an_interrupt_leaves_a_split_that_the_same_call_completes(folder: Store) -> None:
    spec = DatasetSpec("raw", 400, record_dims=(300, 300))

    def interrupt(progress: Progress) -> None:
        if progress.files_done < 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(folder, spec, GenerateOptions(threads=2), progress=interrupt)
    there = len(list(folder.list("train/")))
    assert there < 400
    report = generate(folder, spec)
    assert (report.files_kept + report.files_adopted, report.files_made) == (there, 400 - there)
    assert verify(folder, open_manifest(folder)).good


def test_what_cannot_fit_is_refused_before_anything_is_written(folder: Store, tmp_path: Path) -> None:
    spec = DatasetSpec("raw", 1 << 30, record_dims=(1024, 1024))
    with pytest.raises(PreflightError, match=r"does not fit.*1125899906842624 bytes \(1.00 PiB\) free, got \d+ bytes"):
        generate(folder, spec)
    assert os.listdir(tmp_path / "data") == []


class Quota(Layer):
    """A store that holds so many bytes of data and no more."""

    left_bytes = 0

    def put_parts(self, key: str, parts: Iterator[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        data = b"".join(parts)
        self.left_bytes -= len(data)
        if self.left_bytes < 0 and key.startswith("train/"):
            raise NoSpaceError("disk is full", where=key)
        return self.inner.put(key, data, if_absent=if_absent)


def test_a_full_disk_keeps_what_is_made_and_resumes(folder: Store) -> None:
    full = Quota(folder)
    full.left_bytes = 5000
    with pytest.raises(NoSpaceError, match=r"expected \d+ bytes .*still to be made, got \d+ bytes .*finished files"):
        generate(full, SMALL, GenerateOptions(threads=1))
    there = contents(folder)
    assert len(there) == 3
    report = generate(folder, SMALL)
    assert (report.files_kept, report.files_made) == (3, 7)
    assert there.items() <= contents(folder).items()


class Flaky(Layer):
    """A store whose every third stream of parts breaks after it was read."""

    calls = 0

    def put_parts(self, key: str, parts: Iterator[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        data = b"".join(parts)
        self.calls += 1
        if self.calls % 3 == 0:
            raise TransientError("connection reset", where=key)
        return self.inner.put(key, data, if_absent=if_absent)


def test_a_passing_failure_is_repeated_with_the_content_made_again(store: Store) -> None:
    report = generate(Flaky(store), SMALL, GenerateOptions(threads=1))
    assert report.retries >= 3
    assert verify(store, open_manifest(store)).good


class Liar(Layer):
    """A store that says it kept more than it did."""

    def put_parts(self, key: str, parts: Iterator[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        data = b"".join(parts)
        if key == "train/img_04_of_10.npz":
            data = data[:-1] + bytes([data[-1] ^ 1])
        return self.inner.put(key, data, if_absent=if_absent)


def test_verify_after_finds_what_the_store_changed(store: Store) -> None:
    with pytest.raises(CorruptError, match=r"img_04_of_10.npz.*expected checksum xxh3 [0-9a-f]{16}"):
        generate(Liar(store), SMALL, GenerateOptions(verify_after=True))
    with pytest.raises(PreflightError, match="not completed"):
        open_manifest(store)
    store.delete("train/img_04_of_10.npz")
    assert generate(store, SMALL, GenerateOptions(verify_after=True)).files_made == 1


def test_a_store_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="keeps nothing"):
        generate(open_store("null://x"), SMALL)


@pytest.mark.parametrize("options", [GenerateOptions(rank=2, world=2), GenerateOptions(threads=0)])
def test_a_share_that_makes_no_sense_is_refused(store: Store, options: GenerateOptions) -> None:
    with pytest.raises(UsageError, match="cannot be shared so"):
        generate(store, SMALL, options)


def test_more_ranks_than_files_is_fine(store: Store) -> None:
    for rank in range(12):
        generate(store, SMALL, GenerateOptions(rank=rank, world=12))
    assert len(commit(store, SMALL)) == 10
