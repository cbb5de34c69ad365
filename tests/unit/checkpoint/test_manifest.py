"""A checkpoint is whole when its manifest says so, and nobody else's files are touched."""

from pathlib import Path

import msgspec
import pytest
from shapes import tiny

from stoker.checkpoint.layout import totals
from stoker.checkpoint.manifest import (
    BEGUN_KEY,
    MANIFEST_BYTES_MAX,
    MANIFEST_KEY,
    begin,
    commit,
    list_checkpoints,
    load_manifest,
    remove,
    require_same,
)
from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.storage.api import Store
from stoker.storage.opening import open_store

NAME = "global_epoch1_step1"
SHAPE = tiny(zero_stage=3)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def put(store: Store, name: str = NAME) -> None:
    begin(store, "m", name)
    store.put(f"m/{name}/zero_pp_rank_0_mp_rank_0_model_states.pt", b"x")
    commit(store, "m", name, shape=SHAPE, ranks=2, sums=totals(SHAPE, 2), content_seed=3)


def test_a_commit_can_be_read_back(store: Store) -> None:
    put(store)
    manifest = load_manifest(store, "m", NAME)
    assert (manifest.shape, manifest.ranks, manifest.content_seed) == (SHAPE, 2, 3)
    assert manifest.files == 4
    require_same(manifest, SHAPE, 2, where="x")
    with pytest.raises(UsageError, match=r"expected .*layers 3.* got .*layers 2"):
        require_same(manifest, tiny(zero_stage=3, layers=3), 2, where="x")
    with pytest.raises(UsageError, match="ranks 4"):
        require_same(manifest, SHAPE, 4, where="x")


def test_beginning_anew_takes_the_commit_back(store: Store) -> None:
    put(store)
    begin(store, "m", NAME)
    assert list_checkpoints(store, "m") == [(NAME, False)]
    assert [info.key for info in store.list("m/")] == [f"m/{NAME}/{BEGUN_KEY}"]
    with pytest.raises(CorruptError, match="torn"):
        load_manifest(store, "m", NAME)


def test_what_is_not_there_is_not_torn(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no such checkpoint"):
        load_manifest(store, "m", NAME)


def test_files_of_others_are_neither_written_over_nor_removed(store: Store) -> None:
    store.put(f"m/{NAME}/zero_pp_rank_0_mp_rank_0_model_states.pt", b"theirs")
    with pytest.raises(UsageError, match="did not make"):
        begin(store, "m", NAME)
    with pytest.raises(UsageError, match="nothing is removed"):
        remove(store, "m", NAME)
    store.delete(f"m/{NAME}/zero_pp_rank_0_mp_rank_0_model_states.pt")
    put(store)
    store.put(f"m/{NAME}/notes.txt", b"theirs")
    assert remove(store, "m", NAME) == 1
    assert [info.key for info in store.list("")] == [f"m/{NAME}/notes.txt"]


def test_checkpoints_are_listed_in_order(store: Store) -> None:
    for number in (10, 2, 1):
        put(store, f"global_epoch1_step{number}")
    begin(store, "m", "global_epoch2_step1")
    store.put("m/global_epoch9_stepX/" + MANIFEST_KEY, b"{}")
    store.put("m/other/" + MANIFEST_KEY, b"{}")
    assert list_checkpoints(store, "m") == [
        ("global_epoch1_step1", True),
        ("global_epoch1_step2", True),
        ("global_epoch1_step10", True),
        ("global_epoch2_step1", False),
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "damaged"),
        (b"[1]", "damaged"),
        (b'{"id": 4}', "damaged"),
        (b"{" * 100_000, "damaged"),
        (b" " * (MANIFEST_BYTES_MAX + 1), "too large"),
    ],
)
def test_hostile_manifests_are_refused(store: Store, data: bytes, told: str) -> None:
    put(store)
    store.put(f"m/{NAME}/{MANIFEST_KEY}", data)
    with pytest.raises(CorruptError, match=told):
        load_manifest(store, "m", NAME)


@pytest.mark.parametrize("changes", [{"version": 2}, {"content_version": 9}, {"id": "global_epoch1_step2"}])
def test_manifests_of_another_kind_are_refused(store: Store, changes: dict[str, object]) -> None:
    put(store)
    manifest = msgspec.to_builtins(load_manifest(store, "m", NAME)) | changes
    store.put(f"m/{NAME}/{MANIFEST_KEY}", msgspec.json.encode(manifest))
    with pytest.raises(CorruptError, match="not ours"):
        load_manifest(store, "m", NAME)


def test_a_manifest_of_huge_numbers_costs_nothing(store: Store) -> None:
    put(store)
    manifest = msgspec.to_builtins(load_manifest(store, "m", NAME))
    manifest["ranks"] = manifest["shape"]["layers"] = 10**15
    store.put(f"m/{NAME}/{MANIFEST_KEY}", msgspec.json.encode(manifest))
    with pytest.raises(UsageError, match="another model"):
        require_same(load_manifest(store, "m", NAME), SHAPE, 2, where="x")
