"""Which torch operators write into tracked tensors, told by the operators' own schemas.

Below autograd every operator declares the arguments it writes (`Tensor(a!)`): in-place ones, `out=`, fused optimizers.
Writes that are no operator (NumPy on shared memory, C code) are not seen here; page tracking sees those.
A capture is of the thread that enters it; torch carries it into the threads that run its backward pass. Torch calls
Python for every operator meanwhile: for training use the hooks of the optimizer, which cost less.
An eager `torch.cond` under any such mode leaves torch's compiler in a state in which a later export of a branch fails:
`torch._dynamo.reset()` mends it.
"""

from collections import deque
from collections.abc import Iterator
from functools import cache
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from stoker.core.errors import UsageError
from stoker.pages.capture.extras import need_torch

WRITES_MAX: Final = 65_536


class Write(msgspec.Struct, frozen=True):
    """One operator that wrote into a tracked tensor's storage, bytes `start` to `end` at most of it.

    `completed` is false where the operator raised: then some of the bytes may be written.
    """

    operator: str
    key: str
    start: int
    end: int
    completed: bool


class WriteCapture:
    """Notices operators that write into the storages of tracked tensors, between entering and leaving.

    May be nested and entered again; holds at most `capacity` writes and counts those it drops, the oldest first.
    Raises MissingExtraError without torch.
    """

    def __init__(self, tensors: dict[str, Any], *, capacity: int = WRITES_MAX) -> None:
        """Track tensors by key; they are kept alive.

        Raises UsageError for one without memory, or two on one storage.
        """
        self._torch = need_torch("capturing writes of torch operators")
        if capacity < 1:
            raise UsageError("capture without room", expected="at least 1", got=str(capacity))
        self._tensors = dict(tensors)
        self._keys: dict[int, str] = {}
        for key, tensor in self._tensors.items():
            self._track(key, tensor)
        self._writes: deque[Write] = deque(maxlen=capacity)
        self._seen = 0
        self._modes: list[Any] = []

    def __enter__(self) -> Self:
        mode = _mode_class()()
        mode.called = self._called
        mode.__enter__()
        self._modes.append(mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._modes.pop().__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Write]:
        """Yield the writes in their order."""
        return iter(tuple(self._writes))

    def __len__(self) -> int:
        return len(self._writes)

    @property
    def dropped(self) -> int:
        """Writes that found no room."""
        return self._seen - len(self._writes)

    def clear(self) -> None:
        """Forget the writes so far."""
        self._writes.clear()
        self._seen = 0

    def _track(self, key: str, tensor: Any) -> None:
        address = _address(tensor)
        if not address:
            raise UsageError("a tensor without memory cannot be tracked", where=key)
        if address in self._keys:
            raise UsageError("two tracked tensors share one storage", where=key, got=self._keys[address])
        self._keys[address] = key

    def _called(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name, positions = _facts(operator)
        if not positions:
            return operator(*args, **kwargs)
        written = self._written(positions, args, kwargs)
        completed = False
        try:
            result = operator(*args, **kwargs)
            completed = True
            return result
        finally:
            for key, start, end in written:
                self._writes.append(Write(name, key, start, end, completed))
            self._seen += len(written)

    def _written(
        self, positions: tuple[tuple[int | None, str], ...], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[tuple[str, int, int]]:
        """Return key and extent of each tracked tensor that these arguments write. It runs for every such operator."""
        found: list[tuple[str, int, int]] = []
        kind = self._torch.Tensor
        for position, name in positions:
            value = args[position] if position is not None and position < len(args) else kwargs.get(name)
            for tensor in value if isinstance(value, tuple | list) else (value,):
                if isinstance(tensor, kind) and (key := self._keys.get(_address(tensor))) is not None:
                    start, end = _extent(tensor)
                    if end > start:
                        found.append((key, start, end))
        return found


@cache
def _facts(operator: Any) -> tuple[str, tuple[tuple[int | None, str], ...]]:
    """Return an operator's name, and position (None: by keyword alone) and name of the arguments that it writes."""
    schema = getattr(operator, "_schema", None)
    if schema is None:
        return str(operator), ()
    return str(operator), tuple(
        (None if argument.kwarg_only else position, argument.name)
        for position, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    )


def _address(tensor: Any) -> int:
    """Return where a tensor's storage lies, 0 for one without (sparse, fake, meta)."""
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (NotImplementedError, RuntimeError):
        return 0


def _extent(tensor: Any) -> tuple[int, int]:
    """Return the first byte of its storage that a tensor covers, and the one behind its last."""
    first, width, elements = tensor.storage_offset(), tensor.element_size(), tensor.numel()
    if not elements or tensor.is_contiguous():
        return first * width, (first + elements) * width
    last = first + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return first * width, (last + 1) * width


@cache
def _mode_class() -> Any:
    """Return the class of the mode: made when first needed, as its base lives in torch."""
    from torch.utils import _python_dispatch

    def dispatch(mode: Any, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return mode.called(func, args, kwargs or {})

    base: Any = _python_dispatch.TorchDispatchMode
    return type("WriteMode", (base,), {"__torch_dispatch__": dispatch, "supports_higher_order_operators": True})
