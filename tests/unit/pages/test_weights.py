"""Weights: published, taken in part, without loss, over shared memory and sockets."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.pages import PageNotFound, Store, apply_weights, publish_weights
from stoker.pages.follow.messages import ConnectionLost
from stoker.pages.graph.nodes import to_bfloat16
from stoker.pages.weights_feed import WeightClient, WeightServer

TOKEN = "a token of some length"
Model = dict[str, NDArray[np.generic]]


class Trainer:
    """fp32 masters that take small steps, and their bfloat16 copies, as 16-bit patterns."""

    def __init__(self, seed: int = 1) -> None:
        self._chance = np.random.default_rng(seed)
        self._masters = {
            "embed": self._chance.normal(0, 0.02, (300, 64)).astype(np.float32),
            "layer.weight": self._chance.normal(0, 0.02, (64, 64)).astype(np.float32),
            "layer.bias": np.zeros(64, np.float32),
        }

    def step(self) -> Model:
        for name, master in self._masters.items():
            self._masters[name] = master - self._chance.choice([-1e-6, 1e-6], master.shape).astype(np.float32)
        return self.model()

    def model(self) -> Model:
        return {name: to_bfloat16(master.reshape(-1)).reshape(master.shape) for name, master in self._masters.items()}


def blank(model: Model) -> Model:
    return {name: np.zeros_like(tensor) for name, tensor in model.items()}


def equal(one: Model, other: Model) -> bool:
    return all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture
def store() -> Iterator[Store]:
    with Store.open(name="weights-test", size_bytes=8 << 20, pages_max=256, log_bytes=1 << 20) as opened:
        yield opened


def test_a_thousand_steps_are_exact(store: Store) -> None:
    trainer = Trainer()
    worker, lsn = blank(trainer.model()), 0
    for step in range(1000):
        model = trainer.step()
        publish_weights(model, store, chunk_bytes=8192)
        if step % 7 == 0 or step == 999:
            lsn = apply_weights(worker, store, since=lsn)
            assert equal(worker, model), step
    assert store.counters()["deltas"] > 1000


def test_only_what_changed_is_logged_and_copied(store: Store) -> None:
    trainer = Trainer()
    model = trainer.model()
    publish_weights(model, store)
    nothing = publish_weights(model, store)
    assert nothing.changed_pages == 1, "the manifest alone"
    model["layer.bias"][3] = 7
    assert publish_weights(model, store).changed_pages == 2


def test_a_first_publication_larger_than_a_commit_is_whole_or_not_there() -> None:
    with Store.open(size_bytes=8 << 20, pages_max=256, log_bytes=1 << 17) as store:
        big = {"w": np.random.default_rng(1).integers(0, 255, 1 << 20, np.uint8)}
        publish_weights(big, store)
        worker = blank(big)
        lsn = apply_weights(worker, store)
        assert equal(worker, big)
        assert lsn == store.lsn


def test_other_weights_are_refused(store: Store) -> None:
    model = Trainer().model()
    with pytest.raises(PageNotFound):
        apply_weights(model, store)
    publish_weights(model, store)
    with pytest.raises(UsageError, match=r"layer\.bias"):
        publish_weights({**model, "layer.bias": np.zeros(65, np.uint16)}, store)
    with pytest.raises(UsageError, match="embed"):
        apply_weights({**model, "embed": np.zeros((1, 2), np.uint16)}, store)
    with pytest.raises(UsageError):
        publish_weights({}, store)


def test_another_process_takes_them(store: Store) -> None:
    model = Trainer().step()
    publish_weights(model, store)
    script = """
import numpy as np
from stoker.pages import Store, apply_weights
with Store.attach("weights-test") as store:
    worker = {"embed": np.zeros((300, 64), np.uint16), "layer.weight": np.zeros((64, 64), np.uint16),
              "layer.bias": np.zeros(64, np.uint16)}
    apply_weights(worker, store)
    print(int(worker["embed"].sum()), int(worker["layer.weight"].sum()))
"""
    told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert told.split() == [str(int(model["embed"].sum())), str(int(model["layer.weight"].sum()))]


def test_a_socket_carries_small_differences_exactly(store: Store) -> None:
    trainer = Trainer()
    publish_weights(trainer.model(), store)
    with WeightServer(store, token=TOKEN) as server:
        client = WeightClient(*server.address, token=TOKEN)
        worker = blank(trainer.model())
        client.apply(worker, timeout_seconds=30)
        assert equal(worker, trainer.model())
        first = client.received_bytes
        for _ in range(30):
            model = trainer.step()
            version = publish_weights(model, store).version
            while client.version < version:
                client.apply(worker, timeout_seconds=30)
            assert equal(worker, model)
        assert (client.received_bytes - first) / 30 < first / 10
        client.close()
        with pytest.raises(ConnectionLost, match="token"):
            WeightClient(*server.address, token="x" * 20).wait(5)


def test_torch_models_go_both_ways(store: Store) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'stoker[torch]'")
    model = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).to(torch.bfloat16)
    worker = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4)).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    lsn = 0
    for _ in range(5):
        loss = model(torch.randn(16, 32, dtype=torch.bfloat16)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        publish_weights(model, store)
        lsn = apply_weights(worker, store, since=lsn)
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, worker.state_dict()[name])
