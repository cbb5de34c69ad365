"""Operators that write into tracked tensors are told with the bytes they may have written."""

import sys

import pytest

from stoker.core.errors import MissingExtraError, UsageError
from stoker.pages.capture.dispatch import WriteCapture

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'stoker[torch]'")


def told(capture: WriteCapture) -> list[tuple[str, str, int, int]]:
    return [(write.operator, write.key, write.start, write.end) for write in capture]


def test_in_place_operators_and_views_are_told_with_their_bytes() -> None:
    weight, other = torch.zeros(10, 4), torch.zeros(5)
    with WriteCapture({"weight": weight}) as capture:
        weight.add_(1)
        weight[2].fill_(3)
        weight[:, 1].mul_(2)
        weight[3:5] = 7
        other.add_(1)
        weight + 1
    assert told(capture)[0] == ("aten.add_.Tensor", "weight", 0, 160)
    assert [write[1:] for write in told(capture)] == [
        ("weight", 0, 160),
        ("weight", 32, 48),
        ("weight", 4, 152),
        ("weight", 48, 80),
    ]


def test_out_arguments_and_lists_are_told() -> None:
    first, second = torch.zeros(3), torch.zeros(3)
    with WriteCapture({"a": first, "b": second}) as capture:
        torch.add(torch.ones(3), torch.ones(3), out=second)
        torch._foreach_add_([first, second], 1.0)
    assert told(capture) == [
        ("aten.add.out", "b", 0, 12),
        ("aten._foreach_add_.Scalar", "a", 0, 12),
        ("aten._foreach_add_.Scalar", "b", 0, 12),
    ]
    assert first.tolist() == [1, 1, 1]
    assert second.tolist() == [3, 3, 3]


@pytest.mark.parametrize("options", [{}, {"foreach": True}, {"fused": True}])
def test_steps_of_optimizers_are_told(options: dict[str, bool]) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    with WriteCapture(dict(model.named_parameters())) as capture:
        model(torch.ones(1, 3)).sum().backward()
        assert len(capture) == 0
        optimizer.step()
    assert {write.key for write in capture} == {"weight", "bias"}


def test_nested_captures_both_see_and_results_stay() -> None:
    x = torch.zeros(2)
    with WriteCapture({"outer": x}) as outer, WriteCapture({"inner": x}) as inner:
        x.add_(1)
        with inner:
            x.add_(1)
    assert x.tolist() == [2, 2]
    assert [write.key for write in outer] == ["outer"] * 2
    assert [write.key for write in inner] == ["inner"] * 3


def test_nothing_is_seen_outside() -> None:
    x = torch.zeros(2)
    capture = WriteCapture({"x": x})
    x.add_(1)
    with capture:
        pass
    x.add_(1)
    assert len(capture) == 0


def test_failing_operator_is_told_as_not_completed_and_the_mode_ends() -> None:
    x = torch.zeros(2)
    capture = WriteCapture({"x": x})
    with pytest.raises(IndexError), capture:
        x.index_add_(0, torch.tensor([5]), torch.ones(1))
    assert [(write.operator, write.completed) for write in capture] == [("aten.index_add_.default", False)]
    x.add_(1)
    assert len(capture) == 1


def test_old_writes_are_dropped_and_counted() -> None:
    x = torch.zeros(2)
    with WriteCapture({"x": x}, capacity=3) as capture:
        for _ in range(5):
            x.add_(1)
    assert (len(capture), capture.dropped) == (3, 2)
    capture.clear()
    assert (len(capture), capture.dropped) == (0, 0)


def test_tensors_that_cannot_be_told_apart_are_refused() -> None:
    x = torch.zeros(4)
    with pytest.raises(UsageError, match="share one storage"):
        WriteCapture({"a": x, "b": x[2:]})
    with pytest.raises(UsageError, match="without memory"):
        WriteCapture({"a": torch.zeros(2, device="meta")})
    with pytest.raises(UsageError, match="without room"):
        WriteCapture({"a": x}, capacity=0)


def test_missing_torch_is_told_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"stoker\[torch\]"):
        WriteCapture({})


def test_operators_on_other_kinds_of_tensors_and_branches_are_let_through() -> None:
    x = torch.zeros(3)
    sparse = torch.eye(3).to_sparse()
    with WriteCapture({"x": x}) as capture:
        sparse.mul_(2)
        torch.empty(2, device="meta").add_(1)
        result = torch.cond(torch.tensor(True), lambda y: y + 1, lambda y: y - 1, (x,))
        x.add_(result)
    assert x.tolist() == [1, 1, 1]
    assert [write.key for write in capture] == ["x"]
    with pytest.raises(UsageError, match="without memory"):
        WriteCapture({"sparse": sparse})
    torch._dynamo.reset()
