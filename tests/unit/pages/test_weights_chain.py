"""Versions of weights in files: exact along every way, whole when the differences cost too much."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages import ChecksumError, FormatError, InvalidDelta, PageNotFound, Store
from stoker.pages.anchoring import AnchorPolicy, Chain
from stoker.pages.weights_chain import WeightChain, follow_chain, read_head, version_path, versions, way_to_newest


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    chance = np.random.default_rng(seed)
    return {
        "layer.weight": chance.integers(0, 1 << 16, (64, 65)).astype(np.uint16),
        "layer.bias": chance.normal(size=65).astype(np.float32),
        "none": np.zeros((0, 4), np.float32),
    }


def step(model: dict[str, np.ndarray], seed: int, ratio: float = 0.02) -> None:
    chance = np.random.default_rng(seed)
    hit = chance.random(model["layer.weight"].shape) < ratio
    model["layer.weight"][hit] += 1
    if seed % 3 == 0:
        model["layer.bias"][seed % 65] += 0.5


def empty() -> dict[str, np.ndarray]:
    return {key: np.zeros_like(value) for key, value in weights().items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(one[key], other[key]) for key in one)


def test_a_policy_looks_at_bytes_time_and_length() -> None:
    whole = Chain(1000)
    policy = AnchorPolicy(stored_ratio_max=0.5, seconds_max=10.0, length_max=7)
    assert not policy.due(whole.longer(500))
    assert policy.due(whole.longer(500).longer(1))
    assert policy.due(Chain(1000, 7, 7))
    assert not policy.due(Chain(1000, 6, 7))
    slow = Chain(10**10)
    steps = next(n for n in itertools.count() if policy.due(Chain(10**10, n, 0)))
    assert Chain(slow.whole_bytes, steps).seconds() > 10.0 >= Chain(slow.whole_bytes, steps - 1).seconds()


def test_every_worker_gets_the_same_weights_whatever_it_had(tmp_path: Path) -> None:
    chain, model = WeightChain(tmp_path, AnchorPolicy(stored_ratio_max=0.2)), weights()
    steady, have, kept = empty(), 0, {0: empty()}
    wholes = []
    for version in range(1, 31):
        head = chain.publish(model)
        assert head.version == version
        wholes += [version] if head.whole else []
        have = follow_chain(tmp_path, steady, have)
        assert have == version
        assert same(steady, model)
        kept[version] = {key: value.copy() for key, value in model.items()}
        step(model, version)
    assert wholes[0] == 1
    assert 2 < len(wholes) < 12
    for start, late in kept.items():
        assert follow_chain(tmp_path, late, start) == 30
        assert same(late, kept[30])


def test_the_faster_weights_change_the_more_versions_are_whole(tmp_path: Path) -> None:
    counts = []
    for ratio in (0.0, 0.08, 0.5):
        folder = tmp_path / str(ratio)
        folder.mkdir()
        chain, model = WeightChain(folder), weights()
        wholes = 0
        for version in range(20):
            wholes += chain.publish(model).whole
            step(model, version, ratio)
        counts.append(wholes)
    assert counts == sorted(set(counts)), counts
    assert counts[0] == 1


def test_what_is_behind_a_whole_version_can_go(tmp_path: Path) -> None:
    chain, model = WeightChain(tmp_path, AnchorPolicy(length_max=4)), weights()
    for version in range(1, 13):
        chain.publish(model)
        step(model, version)
    assert [version for version in versions(tmp_path) if read_head(version_path(tmp_path, version))[0].whole] == [
        1,
        6,
        11,
    ]
    assert chain.prune() == list(range(1, 11))
    assert way_to_newest(tmp_path, 0) == [11, 12]
    assert way_to_newest(tmp_path, 5) == [11, 12]
    assert way_to_newest(tmp_path, 11) == [12]
    assert way_to_newest(tmp_path, 12) == []
    late = empty()
    assert follow_chain(tmp_path, late, 0) == 12
    version_path(tmp_path, 11).unlink()
    with pytest.raises(PageNotFound, match="no whole version"):
        follow_chain(tmp_path, empty(), 0)


def test_a_trainer_that_begins_again_goes_on_with_a_whole_version(tmp_path: Path) -> None:
    model = weights()
    WeightChain(tmp_path).publish(model)
    head = WeightChain(tmp_path).publish(model)
    assert (head.version, head.whole) == (2, True)


def test_damage_and_wrong_models_are_told(tmp_path: Path) -> None:
    chain, model = WeightChain(tmp_path), weights()
    chain.publish(model)
    follow_chain(tmp_path, late := empty(), 0)
    step(model, 3)
    chain.publish(model)
    late["layer.weight"][5, 5] ^= 1
    with pytest.raises(InvalidDelta, match="another image"):
        follow_chain(tmp_path, late, 1)
    with pytest.raises(UsageError, match="no such tensor"):
        follow_chain(tmp_path, {"layer.bias": np.zeros(65, np.float32)}, 0)
    with pytest.raises(UsageError, match="differs"):
        follow_chain(tmp_path, {**empty(), "layer.bias": np.zeros(64, np.float32)}, 0)
    with pytest.raises(UsageError, match="other weights"):
        chain.publish({"layer.bias": model["layer.bias"]})
    path = version_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ChecksumError):
        follow_chain(tmp_path, empty(), 0)
    path.write_bytes(b"short")
    with pytest.raises(FormatError):
        follow_chain(tmp_path, empty(), 0)


def test_incremental_checkpoints_become_whole_when_half_the_pages_lie_elsewhere(tmp_path: Path) -> None:
    with Store.open(tmp_path / "bus", size_bytes=8 << 20) as store:
        ids = store.allocate_many([4096] * 100)
        store.update_many(ids, np.random.default_rng(1).integers(0, 256, (100, 4096), np.uint8))
        store.checkpoint(keep=20)
        left = []
        for turn in range(10):
            for page in ids[turn * 9 : turn * 9 + 9]:
                store.write_at(int(page), turn, b"changed")
            left.append(store.checkpoint(incremental=True, keep=20).left_pages)
        assert left[:5] == [91] * 5
        assert 0 in left[5:8]
        assert store.verify() == []


def test_a_page_written_whole_is_seen_by_what_follows_in_its_commit() -> None:
    with Store.open(size_bytes=1 << 20) as store:
        one, two = store.allocate(1000), store.allocate(1000)
        first, second = bytes(range(250)) * 4, bytes([3]) * 1000
        with store.batch() as batch:
            batch.write(one, first)
            batch.write(two, second)
            assert batch.read(one).tobytes() == first
            batch.write_at(one, 3, b"abc")
            batch.resize(two, 1004)
            batch.write(one, first[:500] + second[:500])
            batch.write_at(one, 0, b"z")
            copy = batch.clone(one)
        assert one.read().tobytes() == b"z" + first[1:500] + second[:500]
        assert two.read().tobytes() == second + bytes(4)
        assert store.read(copy).tobytes() == one.read().tobytes()
        given = bytearray(second)
        with store.batch() as batch:
            batch.write(one, given)
            given[:] = bytes(1000)  # what was given is what is written
        assert one.read().tobytes() == second
        with store.batch() as batch:
            batch.write(one, first)
            batch.free(one)
        assert store.verify() == []
