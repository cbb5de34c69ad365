"""Graphs of models as pages: source → graph → graph after passes → compiled artefact, and which of them still hold.

The pages go to a `Sink`; edges are of kind COMPILER: when the parent changes, the child is no longer valid.
"""

import inspect
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from stoker.core.errors import UnknownNameError, UsageError
from stoker.pages.capture.canonical import code_digest, encode, encode_text, environment_digest
from stoker.pages.capture.extras import need_torch

COMPILER: Final = 3
"""Kind of the edge from a program to what was derived from it."""
Meta = dict[str, str]
GraphPass = Callable[[Any], Any]
"""Changes a GraphModule in place, or returns another."""


class Sink(Protocol):
    """Where pages of captured programs go."""

    def put(self, name: str, data: bytes, meta: Meta) -> int:
        """Store bytes under a name, which need not be new; return the page's id."""

    def link(self, parent: int, child: int, kind: int) -> None:
        """Add an edge between two pages; adding it again changes nothing."""

    def invalidate(self, page: int) -> None:
        """Mark a page as no longer valid."""


class GraphPages(msgspec.Struct, frozen=True):
    """Pages of one capture, 0 for one that was not made; `key` is the validity key: digests of code and environment."""

    key: str
    source: int
    before: int
    after: int
    artefact: int = 0


def validity_key(source: Any, *packages: str) -> str:
    """Return what an artefact made from `source` depends on: digest of the code, digest of the environment."""
    return f"{code_digest(source)}:{environment_digest(*packages)}"


def capture_graph(
    model: Any, args: tuple[Any, ...], sink: Sink, *, kwargs: dict[str, Any] | None = None, name: str = ""
) -> GraphPages:
    """Export a `torch.nn.Module` and store its source, its graph, and the graph after torch's decompositions.

    Raises MissingExtraError without torch, UsageError for what is no module; what torch cannot export raises its error.
    """
    torch = need_torch("capturing a graph")
    if not isinstance(model, torch.nn.Module):
        raise UsageError("only modules can be exported", expected="torch.nn.Module", got=type(model).__name__)
    called = name or _name_of(model)
    exported = torch.export.export(model, args, kwargs)
    pages = _GraphStore(sink, called, validity_key(model))
    source = pages.put("source", source_bytes(model))
    before = pages.put("graph.before", encode(exported), source)
    after = pages.put("graph.after", encode(exported.run_decompositions()), before)
    return GraphPages(pages.key, source, before, after)


class CaptureBackend:
    """A backend for `torch.compile`: stores each graph it is given, then hands it to another backend.

    `captured` lists the pages of each graph, in the order of compilation.
    """

    def __init__(self, sink: Sink, inner: str | Callable[..., Any], passes: Sequence[GraphPass], source: Any) -> None:
        self._sink = sink
        self._inner = inner
        self._passes = tuple(passes)
        self._source = source
        self._name = "compiled" if source is None else _name_of(source)
        self.captured: Final[list[GraphPages]] = []

    def __call__(self, module: Any, example_inputs: Sequence[Any], **options: Any) -> Any:
        """Store the graph before and after the passes and the compiled artefact; return what is to be run."""
        known = self._source is not None
        key = validity_key(self._source if known else module.code)
        pages = _GraphStore(self._sink, f"{self._name}.{len(self.captured)}", key)
        root = pages.put("source", source_bytes(self._source)) if known else 0
        before = pages.put("graph.before", encode(module), root)
        for change in self._passes:
            module = change(module) or module
            module.recompile()
        after = pages.put("graph.after", encode(module), before)
        compiled = self._resolved()(module, example_inputs, **options)
        inner = self._inner if isinstance(self._inner, str) else self._inner.__qualname__
        artefact = pages.put(f"artefact.{inner}", encode_text(module.code, "python"), after)
        self.captured.append(GraphPages(pages.key, root, before, after, artefact))
        return compiled

    def _resolved(self) -> Callable[..., Any]:
        if not isinstance(self._inner, str):
            return self._inner
        from torch._dynamo import lookup_backend

        found: Callable[..., Any] = lookup_backend(self._inner)
        return found


def capture_backend(
    sink: Sink, inner: str | Callable[..., Any] = "eager", *, passes: Sequence[GraphPass] = (), source: Any = None
) -> CaptureBackend:
    """Return a backend: `torch.compile(model, backend=capture_backend(sink))`.

    `inner` is the backend that compiles (`eager` runs the graph as it is, `inductor` makes native code), `passes`
    change the graph before it; `source` is the function or module that is compiled: torch does not tell it, and without
    it no source page is made. The artefact's page holds the Python code of the graph that `inner` was given.
    Raises MissingExtraError without torch, UnknownNameError for an inner backend that torch does not know.
    """
    torch = need_torch("capturing what torch.compile makes")
    if isinstance(inner, str):
        known = torch._dynamo.list_backends(exclude_tags=())
        if inner not in known:
            raise UnknownNameError("no backend of torch.compile", where=inner, remedy=f"known: {', '.join(known)}")
    return CaptureBackend(sink, inner, passes, source)


def source_bytes(source: Any) -> bytes:
    """Return the canonical bytes of a function's, class's or object's source text, of its code where there is none."""
    written = source if inspect.isroutine(source) or inspect.isclass(source) else type(source)
    try:
        return encode_text(textwrap.dedent(inspect.getsource(written)), "python")
    except (OSError, TypeError):
        return encode(source)


class _GraphStore:
    """Stores the pages of one capture, each linked to the one before."""

    def __init__(self, sink: Sink, name: str, key: str) -> None:
        self._sink = sink
        self._name = name
        self.key: Final = key

    def put(self, what: str, data: bytes, parent: int = 0) -> int:
        page = self._sink.put(f"{self._name}/{what}", data, {"kind": what, "key": self.key})
        if parent:
            self._sink.link(parent, page, COMPILER)
        return page


def _name_of(source: Any) -> str:
    """Return the plain name of a function or class, or of an object's class."""
    return str(getattr(source, "__name__", type(source).__name__))


class _Artefact(msgspec.Struct):
    """What an artefact was made from, and whether it still holds."""

    source: Any
    packages: tuple[str, ...]
    key: str
    valid: bool = True


class Artefacts:
    """Pages that were derived from code; those whose code or environment is another now are marked invalid.

    A function or class of a module is looked up by name at each check, so that one defined anew is noticed; others are
    held as they are, and are noticed when their code object, defaults, closure or globals change.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._artefacts: dict[int, _Artefact] = {}

    def register(self, page: int, source: Any, *packages: str) -> str:
        """Note that a page was made from `source` in today's environment; return its validity key.

        `packages` are those beside NumPy and torch whose versions count. Registering again makes the page valid.
        """
        key = validity_key(source, *packages)
        self._artefacts[page] = _Artefact(source, packages, key)
        return key

    def valid(self, page: int) -> bool:
        """Tell whether a page held at the last check. Raises UnknownNameError for one that is not registered."""
        if page not in self._artefacts:
            raise UnknownNameError("page is not registered as an artefact", where=str(page))
        return self._artefacts[page].valid

    def check(self) -> list[int]:
        """Compute the keys again and invalidate pages whose key is another; return those that fell now."""
        fallen = []
        for page, artefact in self._artefacts.items():
            if artefact.valid and validity_key(_today(artefact.source), *artefact.packages) != artefact.key:
                artefact.valid = False
                self._sink.invalidate(page)
                fallen.append(page)
        return fallen

    def forget(self, page: int) -> None:
        """Drop a page from the registry; one that is not there is no error."""
        self._artefacts.pop(page, None)


def _today(source: Any) -> Any:
    """Return what the module of a function or class holds under its name now, itself where that leads nowhere."""
    name = getattr(source, "__qualname__", "")
    found: Any = sys.modules.get(getattr(source, "__module__", None) or "")
    if found is None or not name or "<" in name:
        return source
    for part in name.split("."):
        found = getattr(found, part, None)
    return source if found is None else found
