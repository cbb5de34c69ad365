"""Steps of an optimizer: who was stepped, what changed exactly, and no hook left behind."""

import sys

import numpy as np
import pytest

from stoker.core.errors import MissingExtraError, UsageError
from stoker.pages.capture.optimizer import Step, watch_optimizer

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'stoker[torch]'")


def model_and_step(dtype: object, kind: str = "AdamW", **options: object) -> tuple[object, object, object]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).to(dtype)
    optimizer = getattr(torch.optim, kind)(model.parameters(), **options)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(4, 8, dtype=dtype)).square().sum().backward()
        optimizer.step()

    return model, optimizer, step


def bits(tensor: object) -> np.ndarray:
    width = {2: torch.int16, 4: torch.int32}[tensor.element_size()]
    array = tensor.detach().reshape(-1).view(width).numpy().copy()
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "options"), [("AdamW", {"lr": 1e-4}), ("SGD", {"lr": 0.1}), ("AdamW", {"fused": True})]
)
def test_changes_rebuild_the_parameters_bit_by_bit(dtype: str, kind: str, options: dict[str, object]) -> None:
    model, optimizer, step = model_and_step(getattr(torch, dtype), kind, **options)
    replica = {name: bits(tensor) for name, tensor in model.named_parameters()}
    ratios = []

    def on_step(seen: Step) -> None:
        for change in seen.changes():
            assert change.dtype == dtype
            where = slice(None) if change.indices is None else change.indices
            assert change.indices is None or (replica[change.name][where] != change.values).all()
            assert change.changed == np.count_nonzero(replica[change.name][where] != change.values)
            replica[change.name][where] = change.values
            ratios.append(change.changed_ratio)

    with watch_optimizer(optimizer, on_step, names=dict(model.named_parameters())):
        for _ in range(5):
            step()
    assert ratios
    for name, tensor in model.named_parameters():
        assert np.array_equal(replica[name], bits(tensor)), name


def test_small_steps_of_bf16_change_few_elements() -> None:
    torch.manual_seed(1)
    weight = torch.nn.Parameter(torch.randn(200, 200).to(torch.bfloat16))
    optimizer = torch.optim.SGD([weight], lr=1e-3)
    weight.grad = torch.randn(200, 200).to(torch.bfloat16)
    before = bits(weight)
    seen: list[Step] = []
    with watch_optimizer(optimizer, seen.append) as watch:
        optimizer.step()
        (change,) = seen[0].changes()
        assert 0 < change.changed_ratio < 1
        assert change.indices.tolist() == np.flatnonzero(before != bits(weight)).tolist()
        assert list(watch.changes()) == []


def test_only_stepped_parameters_are_told() -> None:
    first, second = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([first, second], lr=0.1)
    steps: list[Step] = []
    with watch_optimizer(optimizer, steps.append):
        first.grad = torch.ones(3)
        optimizer.step()
        optimizer.step()
    assert [(step.number, step.names) for step in steps] == [(1, ("group0.0",)), (2, ("group0.0",))]
    assert steps[0].tensors()["group0.0"] is first


def test_lazy_changes_add_up_over_the_steps() -> None:
    model, optimizer, step = model_and_step(torch.float32, "SGD", lr=0.1)
    start = {name: bits(tensor) for name, tensor in model.named_parameters()}
    with watch_optimizer(optimizer, lambda seen: None, names=dict(model.named_parameters())) as watch:
        step()
        step()
        for change in watch.changes():
            where = slice(None) if change.indices is None else change.indices
            start[change.name][where] = change.values
    for name, tensor in model.named_parameters():
        assert np.array_equal(start[name], bits(tensor))


def test_writes_between_steps_are_told() -> None:
    model, optimizer, step = model_and_step(torch.float32, "SGD", lr=0.1)
    steps: list[Step] = []
    with watch_optimizer(optimizer, steps.append, names=dict(model.named_parameters())):
        step()
        with torch.no_grad():
            model[0].bias.add_(1)
        step()
        step()
    assert [seen.written_between for seen in steps] == [(), ("0.bias",), ()]


def test_told_values_stay_when_training_goes_on() -> None:
    weight = torch.nn.Parameter(torch.ones(4))
    with watch_optimizer(torch.optim.SGD([weight], lr=0.1), lambda seen: None) as watch:
        with torch.no_grad():
            weight.fill_(2)
        (dense,) = watch.changes()
        with torch.no_grad():
            weight[1] = 3
        (sparse,) = watch.changes()
    assert dense.values.view(np.float32).tolist() == [2, 2, 2, 2]
    assert (dense.indices, dense.changed) == (None, 4)
    assert sparse.values.view(np.float32).tolist() == [3]
    assert sparse.indices.tolist() == [1]
    with pytest.raises(ValueError, match="read-only"):
        dense.values[0] = 1


def test_names_of_the_optimizer_are_used() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    with watch_optimizer(optimizer, lambda seen: None) as watch:
        assert list(watch.parameters) == ["weight", "bias"]


def test_bits_decide_what_a_change_is() -> None:
    weight = torch.nn.Parameter(torch.tensor([0.0, float("nan"), 1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with watch_optimizer(optimizer, lambda seen: None) as watch:
        with torch.no_grad():
            weight.copy_(torch.tensor([-0.0, float("nan"), 1.0]))
        (change,) = watch.changes()
        assert change.indices.tolist() == [0]
        assert change.values.tolist() == [0x80000000]


def test_strided_and_complex_and_empty_parameters_are_compared() -> None:
    tensors = [torch.ones(4, 3).t(), torch.ones(2, dtype=torch.complex64), torch.ones(0), torch.tensor(1.0)]
    weights = [torch.nn.Parameter(tensor) for tensor in tensors]
    with watch_optimizer(torch.optim.SGD(weights, lr=0.1), lambda seen: None) as watch:
        assert list(watch.changes()) == []
        with torch.no_grad():
            weights[0][2, 3] = 5
            weights[1][1] = 1 + 2j
            weights[3].fill_(2)
        found = {change.name: change for change in watch.changes()}
    assert found["group0.0"].indices.tolist() == [11]
    assert found["group0.1"].indices.tolist() == [3]
    assert found["group0.3"].indices is None
    assert "group0.2" not in found


def test_close_leaves_no_hook_and_no_change_can_be_asked() -> None:
    _, optimizer, step = model_and_step(torch.float32, "SGD", lr=0.1)
    calls: list[Step] = []
    watch = watch_optimizer(optimizer, calls.append)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    step()
    watch.close()
    watch.close()
    step()
    assert len(calls) == 1
    assert len(optimizer._optimizer_step_pre_hooks) == len(optimizer._optimizer_step_post_hooks) == 0
    with pytest.raises(UsageError, match="not known"):
        list(calls[0].changes())


def test_inexact_watch_keeps_no_copy() -> None:
    _, optimizer, step = model_and_step(torch.float32, "SGD", lr=0.1)
    steps: list[Step] = []
    with watch_optimizer(optimizer, steps.append, exact=False):
        step()
        assert len(steps[0].names) == 4
        with pytest.raises(UsageError, match="exact=True"):
            list(steps[0].changes())


def test_error_of_the_listener_reaches_the_caller_and_the_watch_goes_on() -> None:
    _, optimizer, step = model_and_step(torch.float32, "SGD", lr=0.1)
    calls = []

    def on_step(seen: Step) -> None:
        calls.append(seen.number)
        if seen.number == 1:
            raise ValueError("listener")

    with watch_optimizer(optimizer, on_step):
        with pytest.raises(ValueError, match="listener"):
            step()
        step()
    assert calls == [1, 2]


def test_what_is_no_optimizer_and_names_twice_are_refused() -> None:
    with pytest.raises(UsageError, match=r"torch\.optim\.Optimizer"):
        watch_optimizer(object(), print)
    weights = [torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))]
    optimizer = torch.optim.SGD(weights, lr=0.1)
    with pytest.raises(UsageError, match="of one name"):
        watch_optimizer(optimizer, print, names={"group0.1": weights[0]})
    assert not optimizer._optimizer_step_post_hooks


def test_missing_torch_is_told_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"stoker\[torch\]"):
        watch_optimizer(object(), print)
