"""A thousand differences of real training, one behind the other: the last weights are the trainer's, bit by bit."""

from pathlib import Path

import numpy as np
import pytest

from stoker.pages import Store, apply_weights, publish_weights
from stoker.pages.anchoring import AnchorPolicy
from stoker.pages.weights_chain import WeightChain, follow_chain
from stoker.pages.wire import decode_wire, encode_wire

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'stoker[torch]'")


class Trainer:
    """A small model with fp32 masters under AdamW; what is published are bfloat16 copies."""

    def __init__(self, learning_rate: float) -> None:
        torch.manual_seed(7)
        torch.set_num_threads(1)
        layer = torch.nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True)
        self.model = torch.nn.Sequential(torch.nn.Embedding(97, 32), layer, torch.nn.Linear(32, 97))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate)
        self.chance = torch.Generator().manual_seed(8)

    def step(self) -> None:
        tokens = torch.randint(0, 97, (2, 17), generator=self.chance)
        found = self.model(tokens[:, :-1])
        torch.nn.functional.cross_entropy(found.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def copies(self) -> dict[str, "torch.Tensor"]:
        return {name: value.detach().to(torch.bfloat16) for name, value in self.model.state_dict().items()}


def same(one: dict[str, "torch.Tensor"], other: dict[str, "torch.Tensor"]) -> bool:
    return all(torch.equal(one[name].view(torch.int16), other[name].view(torch.int16)) for name in other)


def zeros(like: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    return {name: torch.zeros_like(value) for name, value in like.items()}


def test_steps_of_training_reach_workers_by_every_way(tmp_path: Path) -> None:
    trainer = Trainer(1e-5)
    chain, by_file, by_memory = WeightChain(tmp_path), zeros(trainer.copies()), zeros(trainer.copies())
    version = lsn = 0
    with Store.open(size_bytes=16 << 20) as store:
        for _ in range(20):
            trainer.step()
            published = trainer.copies()
            chain.publish(published)
            publish_weights(published, store)
            version = follow_chain(tmp_path, by_file, version)
            lsn = apply_weights(by_memory, store, since=lsn)
            assert same(by_file, published)
            assert same(by_memory, published)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_thousand_chained_differences_are_exact(tmp_path: Path) -> None:
    trainer = Trainer(1e-6)
    chain = WeightChain(tmp_path, AnchorPolicy(stored_ratio_max=1e9, seconds_max=1e9))
    chain.publish(trainer.copies())
    images = {name: value.view(torch.uint8).numpy().reshape(-1).copy() for name, value in trainer.copies().items()}
    for _ in range(1000):
        trainer.step()
        for name, value in trainer.copies().items():
            fresh = np.ascontiguousarray(value.view(torch.uint8).numpy().reshape(-1))
            images[name] = decode_wire(images[name], encode_wire(images[name], fresh, 2))
        assert not chain.publish(trainer.copies()).whole
    wanted = trainer.copies()
    for name, image in images.items():
        assert image.tobytes() == wanted[name].view(torch.uint8).numpy().tobytes()
    worker = zeros(wanted)
    assert follow_chain(tmp_path, worker, 0) == 1001
    assert same(worker, wanted)
