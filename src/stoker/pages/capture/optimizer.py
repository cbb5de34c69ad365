"""What a torch optimizer changed, step by step, through its own hooks; without a watch no hook exists.

The watch keeps one copy (shadow) of the parameters it is asked about. A change is found when it is asked for, by bits:
`-0.0` against `0.0` is a change, a NaN against the same NaN is none.
"""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.pages.capture.extras import need_torch

_WIDTHS: Final = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}


class TensorChange(msgspec.Struct, frozen=True):
    """Elements of one tensor that changed since it was last asked; `changed` of its `elements` did.

    `indices`: flat, ascending, int64 of shape (changed,). None where more than half changed: then `values` holds every
    element, in order. `values`: the new bits as unsigned integers of the element's width (bf16 as uint16), read-only.
    """

    name: str
    dtype: str
    elements: int
    changed: int
    indices: NDArray[np.int64] | None
    values: NDArray[Any]

    @property
    def changed_ratio(self) -> float:
        """Changed elements of all; 0 for an empty tensor."""
        return self.changed / self.elements if self.elements else 0.0


class Step(msgspec.Struct, frozen=True):
    """One step of the optimizer: `names` were stepped; `written_between`, since the step before, by somebody else.

    The second is known for tensors whose writes torch counts; one through `.data` is not noticed.
    """

    number: int
    names: tuple[str, ...]
    written_between: tuple[str, ...]
    watch: "OptimizerWatch"

    def tensors(self) -> dict[str, Any]:
        """Return the live parameters that were stepped, by name."""
        return {name: self.watch.parameters[name] for name in self.names}

    def changes(self) -> Iterator[TensorChange]:
        """Yield what changed in the stepped parameters since it was last asked; those unchanged are left out."""
        return self.watch.changes(self.names)


OnStep = Callable[[Step], None]


class OptimizerWatch:
    """Handle of a watched optimizer; `close` removes the hooks and drops the shadows.

    Made by `watch_optimizer`; raises UsageError as that does.
    """

    def __init__(self, optimizer: Any, on_step: OnStep, names: dict[int, str]) -> None:
        self.parameters: Final = _named_parameters(optimizer, names)
        self._on_step = on_step
        self._number = 0
        self._shadows: dict[str, _Shadow] = {}
        self._before: dict[str, int] = {}
        self._after = self._versions()
        self._between: tuple[str, ...] = ()
        self._hooks = [
            optimizer.register_step_pre_hook(self._pre),
            optimizer.register_step_post_hook(self._post),
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the hooks and drop the shadows; may be repeated."""
        while self._hooks:
            self._hooks.pop().remove()
        self._shadows.clear()

    def keep_shadows(self) -> None:
        """Copy the parameters that have no shadow yet: their changes count from here."""
        for name in self.parameters:
            if name not in self._shadows:
                self._shadows[name] = _Shadow(self.parameters[name])

    def changes(self, names: Iterable[str] | None = None) -> Iterator[TensorChange]:
        """Yield the changed parameters (of `names`, else of all) with their new bits, and count from here.

        Raises UsageError where no shadow is kept: the watch was made with `exact=False`, or closed.
        """
        for name in tuple(self.parameters if names is None else names):
            shadow = self._shadows.get(name)
            if shadow is None:
                raise UsageError(
                    "change of a parameter is not known", where=name, remedy="watch with exact=True, and before close()"
                )
            change = shadow.change(name, self.parameters[name])
            if change is not None:
                yield change

    def _pre(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._before = self._versions()
        self._between = tuple(name for name, version in self._before.items() if version != self._after.get(name))

    def _post(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self._after = self._versions()
        stepped = tuple(
            name
            for name, tensor in self.parameters.items()
            if tensor.grad is not None or self._after.get(name) != self._before.get(name)
        )
        self._number += 1
        self._on_step(Step(self._number, stepped, self._between, self))

    def _versions(self) -> dict[str, int]:
        return {name: tensor._version for name, tensor in self.parameters.items() if not tensor.is_inference()}


def watch_optimizer(
    optimizer: Any, on_step: OnStep, *, names: dict[str, Any] | None = None, exact: bool = True
) -> OptimizerWatch:
    """Call `on_step` after each step of a `torch.optim.Optimizer`, until the handle is closed.

    `names` maps names to parameters, as `dict(model.named_parameters())`; else the optimizer's own names are used, or
    `group0.0`. Groups that are added later are not seen. With `exact` one copy of all parameters is kept, which
    `changes` compares with; nothing is compared before it is asked. What `on_step` raises comes out of
    `optimizer.step()`.
    Raises MissingExtraError without torch; UsageError for another object, or two parameters of one name.
    """
    torch = need_torch("watching an optimizer")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(
            "only an optimizer of torch can be watched", expected="torch.optim.Optimizer", got=type(optimizer).__name__
        )
    watch = OptimizerWatch(optimizer, on_step, {id(tensor): name for name, tensor in (names or {}).items()})
    if exact:
        watch.keep_shadows()
    return watch


def _named_parameters(optimizer: Any, names: dict[int, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group_number, group in enumerate(optimizer.param_groups):
        own = group.get("param_names")
        for number, tensor in enumerate(group["params"]):
            told = own[number] if own is not None else f"group{group_number}.{number}"
            name = names.get(id(tensor), told)
            if name in found:
                raise UsageError("two parameters of one name", where=name, remedy="tell names")
            found[name] = tensor
    return found


def _bits(tensor: Any) -> Any:
    """Return the elements as integers, sharing memory where the tensor is contiguous; complex ones as two."""
    torch = need_torch("comparing tensors")
    plain = tensor.detach()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    return plain.contiguous().reshape(-1).view(getattr(torch, _WIDTHS[plain.element_size()]))


class _Shadow:
    """The bits of a tensor when it was last asked about."""

    def __init__(self, tensor: Any) -> None:
        self._bits = _bits(tensor).clone()
        self._lent = False

    def change(self, name: str, tensor: Any) -> TensorChange | None:
        """Return what differs, None where nothing does, and go on from there."""
        now = _bits(tensor)
        differs = now != self._bits
        changed = int(differs.count_nonzero())
        if not changed:
            return None
        indices = None
        if changed * 2 > now.numel():
            # the new copy serves as shadow and as what is told: one pass over the memory less
            self._bits = values = now.clone()
            self._lent = True
        else:
            indices = differs.nonzero(as_tuple=True)[0]
            values = now[indices]
            if self._lent:
                self._bits = self._bits.clone()
                self._lent = False
            self._bits[indices] = values
        bits = values.cpu().numpy()
        told = bits.view(f"u{bits.itemsize}")
        told.flags.writeable = False
        return TensorChange(
            name=name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            elements=now.numel(),
            changed=changed,
            indices=None if indices is None else indices.cpu().numpy(),
            values=told,
        )
