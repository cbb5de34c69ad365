"""Float32 weights published in bfloat16: rounded on the host or by the copies, with the same bytes."""

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages import Conflict, Store, apply_weights, publish_weights
from stoker.pages.devices import DevicePages

torch = pytest.importorskip("torch", reason="the package torch is not installed")


class Model(torch.nn.Module):
    def __init__(self, seed, device="cpu"):
        super().__init__()
        torch.manual_seed(seed)
        self.inner = torch.nn.Linear(70, 90).to(device)
        self.norm = torch.nn.LayerNorm(90).to(device)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device))


@pytest.fixture
def store():
    with Store.open(size_bytes=8 << 20) as opened:
        yield opened


@pytest.fixture(params=["host", "copies"])
def copies(store, device, kernels, request):
    if request.param == "host":
        return None
    made = DevicePages(store, device=device, kernels=kernels.name, slab_bytes=1 << 20, staging_bytes=64 << 10)
    return store.use_devices(made)


def step(model, rate=1e-5):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * rate)
        model.steps += 1


def taken(store, trainer):
    worker = Model(9).to(torch.bfloat16)
    apply_weights(worker, store)
    assert worker.steps == trainer.steps
    return worker


def assert_published(store, trainer):
    worker = taken(store, trainer)
    for key, value in trainer.state_dict().items():
        assert torch.equal(worker.state_dict()[key], value.cpu().to(worker.state_dict()[key].dtype))


def test_workers_get_rounded_weights(store, copies, device):
    trainer = Model(1, device)
    first = publish_weights(trainer, store, dtype="bfloat16", copies=copies, chunk_bytes=4096)
    assert first.weight_bytes == 2 * sum(one.numel() for one in trainer.parameters()) + 8
    assert_published(store, trainer)
    for _ in range(3):
        step(trainer)
        found = publish_weights(trainer, store, dtype="bfloat16", copies=copies, chunk_bytes=4096)
        assert 0 < found.logged_bytes < first.weight_bytes / 4
        assert_published(store, trainer)
    assert store.verify() == []


def test_both_ways_log_the_same_payloads(device):
    logged = []
    for with_copies in (False, True):
        with Store.open(size_bytes=8 << 20) as store:
            trainer = Model(1, device)
            copies = store.use_devices(DevicePages(store, device=device, slab_bytes=1 << 20)) if with_copies else None
            for _ in range(2):
                publish_weights(trainer, store, dtype="bfloat16", copies=copies)
                torch.manual_seed(4)
                step(trainer)
            changes = [frame for frame in store.journal.scan() if frame.page and frame.epoch]
            logged.append({(frame.page, frame.epoch): bytes(frame.payload) for frame in changes})
    assert logged[0] == logged[1]


def test_a_publication_in_several_commits(device):
    with Store.open(size_bytes=8 << 20, log_bytes=32 << 10) as store:
        copies = store.use_devices(DevicePages(store, device=device, slab_bytes=1 << 20, staging_bytes=64 << 10))
        trainer = Model(1, device)
        publish_weights(trainer, store, dtype="bfloat16", copies=copies)
        assert_published(store, trainer)
        step(trainer)
        publish_weights(trainer, store, dtype="bfloat16", copies=copies)
        assert_published(store, trainer)


def test_somebody_elses_write_is_overwritten_as_on_the_host(store, copies, device):
    trainer = Model(1, device)
    publish_weights(trainer, store, dtype="bfloat16", copies=copies)
    page = max(store.pages(), key=lambda one: one.size_bytes)
    page.write_at(0, b"\xff" * 100)
    publish_weights(trainer, store, dtype="bfloat16", copies=copies)
    assert_published(store, trainer)


def test_a_publication_that_fails_can_be_made_again(store, copies, device):
    if copies is None:
        pytest.skip("there are no copies to go back")
    trainer = Model(1, device)
    publish_weights(trainer, store, dtype="bfloat16", copies=copies)
    page = copies.copies[0].page
    copies.changing([page])
    with pytest.raises(Conflict):
        publish_weights(trainer, store, dtype="bfloat16", copies=copies)
    copies.discard([page])
    step(trainer)
    publish_weights(trainer, store, dtype="bfloat16", copies=copies)
    assert_published(store, trainer)


def test_arrays_of_numpy_are_masters_too(store):
    values = np.linspace(-3, 3, 100, dtype=np.float32)
    publish_weights({"row": values}, store, dtype="bfloat16")
    target = {"row": torch.zeros(100, dtype=torch.bfloat16)}
    apply_weights(target, store)
    assert torch.equal(target["row"], torch.from_numpy(values).to(torch.bfloat16))


def test_other_types_cannot_be_asked_for(store):
    with pytest.raises(UsageError, match="or in bfloat16"):
        publish_weights(Model(1), store, dtype="float16")
