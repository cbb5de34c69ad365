"""Small files are made in groups where the store takes them: the same bytes, the same journal, errors one by one."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from stoker.core.errors import NoSpaceError, StokerError, StoreError, TransientError
from stoker.core.plan import DatasetSpec
from stoker.core.units import KiB, MiB
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.loader.dataset.journal import Made
from stoker.loader.dataset.manifest_file import load_manifest
from stoker.loader.dataset.recipe import Recipe
from stoker.loader.dataset.verify import verify
from stoker.loader.dataset.writing import FileMaker, StoppedError
from stoker.storage.api import Buffer, ObjectInfo, Store
from stoker.storage.backends.posix import PosixStore
from stoker.storage.layers.layer import Layer
from stoker.storage.opening import open_store

SPEC = DatasetSpec(format="npz", files=50, samples_per_file=1, record_length_bytes=10_000)
SIDED = DatasetSpec(format="indexed_binary", files=20, samples_per_file=3, record_length_bytes=2000)


class Batched(Layer):
    """Passes batches on, failing what `fails` names, and remembers them."""

    def __init__(self, inner: PosixStore, fails: dict[str, list[StokerError]] | None = None) -> None:
        super().__init__(inner)
        self.posix = inner
        self.fails = fails or {}
        self.batches: list[list[str]] = []

    def put_many(
        self, items: Sequence[tuple[str, Buffer]], *, if_absent: bool = False
    ) -> list[ObjectInfo | StokerError]:
        self.batches.append([key for key, _ in items])
        return [
            self.fails[key].pop() if self.fails.get(key) else self.posix.put_many([(key, data)], if_absent=if_absent)[0]
            for key, data in items
        ]


@pytest.fixture
def posix(tmp_path: Path) -> PosixStore:
    store = open_store(f"file://{tmp_path}/store?fsync=none", create=True)
    assert isinstance(store, PosixStore)
    return store


def objects(store: Store) -> dict[str, bytes]:
    return {info.key: bytes(store.get_range(info.key)) for info in store.list() if not info.key.startswith(".stoker")}


@pytest.mark.parametrize("spec", [SPEC, SIDED], ids=["plain", "sided"])
def test_groups_hold_the_bytes_of_files_made_alone(posix: PosixStore, spec: DatasetSpec) -> None:
    batched = Batched(posix)
    report = generate(batched, spec, GenerateOptions(threads=1))
    alone = open_store(f"mem://alone-{posix.root.replace('/', '-')}")
    generate(alone, spec)
    assert objects(posix) == objects(alone)
    assert (report.files_made, report.complete, report.retries) == (spec.files, True, 0)
    assert max(map(len, batched.batches)) > 1
    assert verify(posix, load_manifest(posix, spec.split)).good


def test_companions_are_there_before_their_files(posix: PosixStore) -> None:
    batched = Batched(posix)
    generate(batched, SIDED, GenerateOptions(threads=1))
    keys = [key for batch in batched.batches for key in batch]
    place = {key: number for number, key in enumerate(keys)}
    recipe = Recipe(SIDED)
    for index in range(SIDED.files):
        sides = recipe.side_files(index)
        assert sides
        assert all(place[side] < place[recipe.keys[index]] for side in sides)


def test_a_file_whose_companion_fails_is_not_put(posix: PosixStore) -> None:
    recipe = Recipe(SIDED)
    (side, *_) = recipe.side_files(1)
    batched = Batched(posix, {side: [NoSpaceError("no space left")]})
    outcomes = FileMaker(batched, recipe, threading.Event()).make_group([0, 1, 2])
    assert [type(outcome) for outcome in outcomes] == [Made, NoSpaceError, Made]
    assert recipe.keys[1] not in objects(posix)


def test_what_fails_in_passing_is_made_again(posix: PosixStore) -> None:
    recipe = Recipe(SPEC)
    batched = Batched(posix, {recipe.keys[3]: [TransientError("lost")]})
    report = generate(batched, SPEC, GenerateOptions(threads=1))
    assert (report.files_made, report.retries) == (50, 1)


def test_after_an_error_what_was_finished_is_in_the_journal(posix: PosixStore) -> None:
    recipe = Recipe(SPEC)
    batched = Batched(posix, {recipe.keys[5]: [StoreError("operating system refused")]})
    with pytest.raises(StoreError, match="refused"):
        generate(batched, SPEC, GenerateOptions(threads=1))
    there = {key for key in objects(posix) if key.endswith(".npz")}
    report = generate(batched, SPEC)
    assert (report.files_kept, report.files_adopted, report.files_made) == (len(there), 0, 50 - len(there))
    assert len(there) >= 5


def test_files_of_a_group_that_are_there_already_are_adopted(posix: PosixStore) -> None:
    generate(posix, SPEC)
    whole = objects(posix)
    for info in list(posix.list(".stoker/")):
        if "manifest" in info.key or "parts" in info.key:
            posix.delete(info.key)
    posix.delete(Recipe(SPEC).keys[7])
    report = generate(posix, SPEC)
    assert (report.files_adopted, report.files_made) == (49, 1)
    assert objects(posix) == whole


def test_a_group_ends_where_files_become_large(posix: PosixStore) -> None:
    spec = DatasetSpec(
        format="raw", files=400, samples_per_file=1, record_length_bytes=300 * KiB, record_length_stdev_bytes=800 * KiB
    )
    recipe = Recipe(spec)
    maker = FileMaker(posix, recipe, threading.Event())
    groups = list(maker.groups(iter(range(400)), alone=lambda index: index in (3, 4), files_max=16))
    assert [index for group in groups for index in group] == list(range(400))
    assert [3] in groups
    assert [4] in groups
    sizes = [[recipe.payload_bytes(range(index, index + 1)) for index in group] for group in groups]
    assert all(len(group) <= 16 and sum(group) <= 8 * MiB for group in sizes if len(group) > 1)
    assert any(len(group) > 1 for group in groups)
    assert all(len(group) == 1 for group in sizes if max(group) > MiB)


def test_stores_without_batches_get_files_alone() -> None:
    maker = FileMaker(open_store("mem://no-batches"), Recipe(SPEC), threading.Event())
    assert list(maker.groups(iter(range(3)), alone=lambda _: False, files_max=9)) == [[0], [1], [2]]


def test_a_group_that_is_told_to_stop_puts_nothing(posix: PosixStore) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StoppedError):
        FileMaker(posix, Recipe(SPEC), stop).make_group([0, 1])
    assert objects(posix) == {}
