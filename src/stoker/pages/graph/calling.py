"""Calling the functions of derived pages: what they are given, and what comes back.

The arrays that a function sees belong to the engine, which fills them anew for the next call.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import UsageError
from stoker.kernels.deltas import two_level_parts
from stoker.kernels.waves import ELEMENTS, Fill, NodeKind, WaveEngine
from stoker.pages.arena.arena import Arena
from stoker.pages.arena.layout import Word
from stoker.pages.errors import quarantined
from stoker.pages.frames import Codec, Frame, FrameType, PageState, parts_of
from stoker.pages.graph.nodes import BUILT_IN, Bytes, Derivation, Function, Input, Ranges, checked_output
from stoker.pages.history.diff import changed_ranges
from stoker.pages.history.state import runs

_SIZES_TRIED: Final = 8


class Call:
    """What a page's function is called with."""

    __slots__ = ("function", "inputs", "out", "parameters")

    def __init__(self, function: Function, inputs: Sequence[Input], out: Bytes, parameters: Mapping[str, object]):
        self.function = function
        self.inputs = inputs
        self.out = out
        self.parameters = parameters

    def make(self, page: int) -> None:
        """Leave the page's new bytes in `out`. Raises what the function raises, UsageError for another size."""
        made = self.function(self.inputs, self.out, **self.parameters)
        if made is not None and made is not self.out:
            self.take(made, page)

    def take(self, made: "NDArray[Any] | bytes", page: int) -> None:
        """Take what the function returned instead of filling `out`. Raises UsageError for another size."""
        self.out[:] = checked_output(made, self.out, page)


class Caller:
    """Prepares calls: one array for each page that functions see, one for each page that they make."""

    def __init__(self, arena: Arena, engine: WaveEngine, functions: Mapping[str, Function]) -> None:
        self._arena = arena
        self._engine = engine
        self._functions = functions
        self.prepared: dict[int, Call] = {}  # to be filled before each call
        self._mirrors: dict[int, Bytes] = {}

    def forget(self, *pages: int) -> None:
        """Prepare all calls anew when next asked; pages that are gone take their arrays with them."""
        for page in list(self.prepared):
            self.drop(page)
        for page in pages:
            self._mirrors.pop(page, None)

    def drop(self, page: int) -> None:
        """Prepare a page's call anew when next asked."""
        self.prepared.pop(page, None)
        self._engine.unprepare(page)

    def filled(self, node: Derivation) -> Call | None:
        """Return a page's call with its inputs as the wave sees them; None when somebody changed one meanwhile.

        Raises UsageError for an unbound function, PageNotFound for an input that is gone, Quarantined.
        """
        for _ in range(_SIZES_TRIED):
            call = self.prepared.get(node.page) or self._prepare(node)
            found = self._engine.fill(node.page)
            if found == Fill.DONE:
                return call
            if found != Fill.RESIZE:
                break
            self.forget()
        self.drop(node.page)
        for page in (*node.inputs, node.page):
            if self._arena.facts(page).state == PageState.QUARANTINED:  # raises for one that is gone
                raise quarantined(page)
        return None

    def _prepare(self, node: Derivation) -> Call:
        function = self._functions.get(node.function)
        if function is None:
            raise UsageError("recompute is not bound in this process", got=node.function, remedy="bind it")
        inputs = [Input(page, self._mirror(page), self._ranges(node.page, page)) for page in node.inputs]
        out = np.empty(self._arena.facts(node.page).size_bytes, np.uint8)
        self._engine.output(node.page, out)
        call = self.prepared[node.page] = Call(function, inputs, out, node.parameters)
        self._engine.prepare(node.page, call)
        return call

    def _mirror(self, page: int) -> Bytes:
        size = self._arena.facts(page).size_bytes
        if page not in self._mirrors or self._mirrors[page].size != size:
            self._mirrors[page] = np.empty(size, np.uint8)
            self._engine.mirror(page, self._mirrors[page])
        return self._mirrors[page].view()

    def _ranges(self, page: int, source: int) -> Callable[[], Ranges | None]:
        return lambda: changed_since(self._arena, self._engine, page, source, self._mirrors[source])


def changed_since(arena: Arena, engine: WaveEngine, page: int, source: int, now: Bytes) -> Ranges | None:
    """Return what may have changed in an input since a page was last made, told by the log; None where it is unknown.

    now  the input as the page's function sees it
    """
    known = engine.changes(page, source)
    if known is None:
        return None
    staged, positions = known
    dirty = np.zeros(now.size, bool)
    for position in positions:
        if not _mark(dirty, _part_at(arena, position, source)):
            return None
    if staged:
        dirty |= arena.read(source)[1] != now
    return changed_ranges(np.flatnonzero(dirty))


def _part_at(arena: Arena, position: int, page: int) -> Frame | None:
    """Return what the frame at a position of the ring says of a page; None when it is overwritten."""
    frame = next(iter(arena.ring.frames(position, position + 1)), None)
    if frame is None or arena.words[Word.FLOOR_POS] > position:
        return None
    return next((part for part in parts_of(frame) if part.page == page), None)


def _mark(dirty: np.ndarray, part: Frame | None) -> bool:
    if part is None or part.type == FrameType.RESIZE:
        return False
    if part.type == FrameType.IMAGE:
        dirty[:] = True
    elif part.codec == Codec.TWO_LEVEL:
        dirty |= two_level_parts(dirty.size, part.payload)[0]
    else:
        for offset, data in runs(part.payload, dirty.size):
            dirty[offset : offset + data.size] = True
    return True


def native_form(node: Derivation) -> tuple[NodeKind, int, int]:
    """Return kind, element and offset by which the native engine makes a page; CALLED for what it does not know."""
    told, kind = node.parameters, _KINDS.get(node.function, NodeKind.CALLED)
    called = (NodeKind.CALLED, 0, 0)
    if node.function not in BUILT_IN or kind == NodeKind.CALLED or not node.inputs:
        return called
    if kind == NodeKind.PASSTHROUGH:
        offset = told.get("offset", 0)
        good = told.keys() <= {"offset"} and isinstance(offset, int) and 0 <= offset < 2**63
        return (kind, 0, int(offset)) if good else called
    if kind == NodeKind.CONCAT:
        return called if told else (kind, 0, 0)
    if kind == NodeKind.TO_BFLOAT16:
        good = told.keys() == {"source", "target"} and told["target"] == "bfloat16"
        return (kind, 0, 0) if good and _element(told["source"]) == "<f4" else called
    element = ELEMENTS.get(_element(told.get("dtype", "")))
    return called if told.keys() != {"dtype"} or element is None else (kind, element, 0)


def _element(told: int | str) -> str:
    """Return a dtype's name with its order of bytes; empty for what is none."""
    try:
        return np.dtype(str(told)).str.replace("|", "<")
    except TypeError:
        return ""


_KINDS: Final = {
    "passthrough": NodeKind.PASSTHROUGH,
    "cast": NodeKind.TO_BFLOAT16,
    "sum": NodeKind.SUM,
    "max": NodeKind.MAX,
    "min": NodeKind.MIN,
    "count": NodeKind.COUNT,
    "concat": NodeKind.CONCAT,
}
