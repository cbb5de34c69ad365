"""The names of the system that pages come after (MMSB), for those who know them; thin, over `stoker.pages`.

from stoker.pages import compat as mmsb

state = mmsb.mmsb_start()
page = mmsb.create_page(state, size=16, metadata={"name": "greeting"})
mmsb.update_page(state, page, b"Hello".ljust(16))
mmsb.mmsb_stop(state, checkpoint_path="greeting.stkc")
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.pages.bus import Store
from stoker.pages.delta import Delta
from stoker.pages.errors import Conflict, InvalidDelta, PageNotFound
from stoker.pages.frames import Frame, FrameType, Location
from stoker.pages.graph import EdgeKind, Input
from stoker.pages.history import State, StateDiff, diff_states, read_checkpoint
from stoker.pages.images import Meta
from stoker.pages.metrics import StoreStats
from stoker.pages.page import as_bytes

Data = bytes | bytearray | memoryview | NDArray[Any]


def mmsb_start(*, size_bytes: int = 64 << 20, path: str | None = None) -> Store:
    """Open a store: in memory, or in a folder."""
    return Store.open(path, size_bytes=size_bytes)


def mmsb_stop(state: Store, checkpoint_path: str | None = None) -> None:
    """Close a store, after a checkpoint when a path is told."""
    if checkpoint_path is not None:
        checkpoint_log(state, checkpoint_path)
    state.close()


@contextmanager
def mmsb(*, size_bytes: int = 64 << 20, path: str | None = None) -> Iterator[Store]:
    """Have a store for a `with` block."""
    state = mmsb_start(size_bytes=size_bytes, path=path)
    try:
        yield state
    finally:
        mmsb_stop(state)


# -- pages -----------------------------------------------------------------------------------------------------------


def create_page(state: Store, *, size: int, location: Location = Location.HOST, metadata: Meta | None = None) -> int:
    """Add a page of zeros and return its id."""
    return state.allocate(size, location=location, meta=metadata).id


def delete_page(state: Store, page: int) -> None:
    """Remove a page."""
    state.free(page)


def resize_page(state: Store, page: int, size: int) -> None:
    """Give a page another size."""
    state.resize(page, size)


def clone_page(state: Store, page: int) -> int:
    """Copy a page and return the new id."""
    return state.clone(page)


def migrate_page(state: Store, page: int, location: Location) -> None:
    """Say where a page's authoritative bytes live."""
    with state.batch() as batch:
        batch.move(page, location, int(location == Location.DEVICE))


def update_page(state: Store, page: int, data: Data, source: str = "") -> int:
    """Replace a page's bytes; return its epoch."""
    state.write(page, data, source=source)
    return state.page(page).epoch


def query_page(state: Store, page: int) -> bytes:
    """Return a copy of a page's bytes."""
    return state.read(page).tobytes()


# -- deltas ----------------------------------------------------------------------------------------------------------


def create_delta(state: Store, page: int, data: Data, source: str = "") -> Delta:
    """Return what would have to change for a page to hold `data`."""
    facts, now = state.arena.read(page)
    fresh = as_bytes(data)
    return Delta.diff(now, fresh, page=page, epoch=facts.epoch + 1, elem_width=facts.elem_width, source=source)


def route_delta(state: Store, delta: Delta, *, propagate: bool = True) -> int:
    """Apply a delta made for the page's present epoch, and run a wave; return the LSN. Raises Conflict."""
    return batch_route_deltas(state, [delta], propagate=propagate)


def batch_route_deltas(state: Store, deltas: Sequence[Delta], *, propagate: bool = True) -> int:
    """Apply deltas as one commit, those of a page in the order of their epochs, then run one wave."""
    with state.batch(source=deltas[0].source if deltas else "") as batch:
        base: dict[int, int] = {}
        for delta in sorted(deltas, key=lambda one: (one.page, one.epoch)):
            expected = base.get(delta.page, batch.commit.facts(delta.page).epoch) + 1
            if delta.epoch != expected:
                raise Conflict(
                    "delta was made for another epoch of its page",
                    where=str(delta.page),
                    expected=f"epoch {expected}",
                    got=str(delta.epoch),
                )
            base[delta.page] = delta.epoch
            data = batch.read(delta.page)
            delta.apply(data)
            batch.write(delta.page, data)
    if propagate:
        state.stabilize()
    return batch.lsn


# -- dependencies ----------------------------------------------------------------------------------------------------


def add_dependency(state: Store, parent: int, child: int, kind: EdgeKind = EdgeKind.DATA) -> None:
    """Add an edge. Raises CycleError."""
    state.link(parent, child, kind)


def remove_dependency(state: Store, parent: int, child: int, kind: EdgeKind = EdgeKind.DATA) -> bool:
    """Remove an edge; tell whether it was there."""
    return state.graph.unlink(parent, child, kind)


def get_children(state: Store, page: int) -> list[int]:
    """Return the pages that depend on this one."""
    return state.graph.graph.children(page)


def get_parents(state: Store, page: int) -> list[int]:
    """Return the pages that this one depends on."""
    return state.graph.graph.parents(page)


def has_cycle(state: Store) -> bool:
    """Tell whether there is a cycle: never, for an edge that closes one is refused."""
    order = {page: index for index, page in enumerate(topological_sort(state))}
    return any(order[parent] >= order[child] for parent, child, _ in state.graph.graph.edges())


def topological_sort(state: Store) -> list[int]:
    """Return all pages of the graph, parents before children."""
    return state.graph.graph.order()


def register_recompute_fn(
    state: Store, page: int, function: Callable[[Store, int], Data], inputs: Sequence[int] | None = None
) -> None:
    """Make a page by `function(state, page)`, which returns exactly its bytes; inputs are its parents by default."""

    def recompute(given: Sequence[Input], _: NDArray[np.uint8]) -> bytes:
        return bytes(function(cast(Store, _Seen(state, given)), page))

    state.derive(recompute, inputs or get_parents(state, page), page, name=f"recompute:{page}")


def register_passthrough_recompute(
    state: Store, page: int, source: int, transform: Callable[[bytes], Data] | None = None
) -> None:
    """Make a page a copy of another, changed by `transform` when it is given."""
    if transform is None:
        state.derive("passthrough", [source], page)
        return

    def recompute(given: Sequence[Input], _: NDArray[np.uint8]) -> bytes:
        return bytes(transform(given[0].data.tobytes()))

    state.derive(recompute, [source], page, name=f"transform:{page}")


def propagate_change(state: Store) -> list[int]:
    """Run a wave, and return the pages that were made anew: which pages changed is known without being told."""
    return state.stabilize().recomputed


def schedule_propagation(state: Store, pages: Sequence[int]) -> list[int]:
    """Return the derived pages that are due, of those below these: `execute_propagation` makes them."""
    below = set(pages).union(*(state.graph.graph.descendants(page) for page in pages))
    return [page for page in state.stale() if page in below]


def execute_propagation(state: Store) -> list[int]:
    """Run a wave, and return the pages that were made anew."""
    return propagate_change(state)


class _Seen:
    """A store as a recompute sees it: its inputs may be newer than their pages, which the wave writes at its end."""

    def __init__(self, state: Store, inputs: Sequence[Input]) -> None:
        self._state = state
        self._inputs = {one.page: one.data for one in inputs}

    def read(self, page: int) -> NDArray[np.uint8]:
        """Return an input's bytes, or another page's."""
        return self._inputs[page] if page in self._inputs else self._state.read(page)

    def __getattr__(self, name: str) -> Any:
        """Everything else is the store's."""
        return getattr(self._state, name)


# -- log and time ----------------------------------------------------------------------------------------------------


def query_log(state: Store, *, page: int | None = None, source: str | None = None) -> list[Frame]:
    """Return the frames that are kept, of a page or of a source."""
    return list(state.journal.scan(page=page, source=source))


def get_deltas_for_page(state: Store, page: int) -> list[Frame]:
    """Return the frames that changed a page's bytes."""
    return list(state.journal.scan(page=page, kinds=frozenset({FrameType.DELTA, FrameType.IMAGE})))


def get_deltas_in_range(state: Store, first_lsn: int, last_lsn: int) -> list[Frame]:
    """Return the frames between two LSNs, both included."""
    return list(state.journal.scan(since=first_lsn, until=last_lsn))


def compute_log_statistics(state: Store) -> dict[str, Any]:
    """Return what the log holds."""
    found: dict[str, Any] = msgspec.to_builtins(state.journal.stats())
    return found


def compress_log(state: Store) -> int:
    """Shorten the log to what follows a checkpoint of now; return the LSN of the oldest frame that is kept.

    Raises UsageError for a store in memory, which keeps the newest frames alone.
    """
    state.checkpoint(keep=1)
    return state.journal.floor_lsn


def checkpoint_log(state: Store, path: str) -> Path:
    """Write a checkpoint under exactly this name, and return its path."""
    target = Path(path)
    written = state.checkpoint(target.parent)
    return written.path.replace(target)


def load_checkpoint(path: str, *, size_bytes: int = 64 << 20) -> Store:
    """Return a new store with the pages of a checkpoint."""
    return Store.restore(path, size_bytes=size_bytes)


def replay_to_epoch(state: Store, page: int, epoch: int) -> State:
    """Return all pages as they were when a page reached an epoch."""
    return state.replay(page=page, epoch=epoch)


def replay_to_timestamp(state: Store, time_ns: int) -> State:
    """Return all pages as they were at a time."""
    return state.replay(time_ns=time_ns)


def replay_from_checkpoint(path: str, deltas: Sequence[Delta] = ()) -> State:
    """Return the pages of a checkpoint, brought on by deltas in the order of their epochs. Raises InvalidDelta."""
    found = read_checkpoint(Path(path))
    incremental_replay(found, deltas)
    return found


def replay_with_predicate(state: Store, wanted: Callable[[State], bool]) -> list[State]:
    """Return a copy of all pages after each commit that is kept for which `wanted` says so."""
    return list(state.journal.states(wanted))


def incremental_replay(found: State, deltas: Sequence[Delta]) -> None:
    """Apply deltas to a past state, those of a page in the order of their epochs. Raises InvalidDelta, PageNotFound."""
    for delta in sorted(deltas, key=lambda one: (one.page, one.epoch)):
        image = found.pages.get(delta.page)
        if image is None:
            raise PageNotFound("delta is of a page that is not there", got=str(delta.page))
        if delta.epoch != image.epoch + 1:
            raise InvalidDelta(
                "delta does not follow its page's epoch",
                where=str(delta.page),
                expected=f"epoch {image.epoch + 1}",
                got=str(delta.epoch),
            )
        delta.apply(image.data)
        image.epoch = delta.epoch


def replay_page_history(state: Store, page: int) -> list[bytes]:
    """Return the bytes of all versions of a page that are kept."""
    return [version.data.tobytes() for version in state.history(page, with_data=True) if version.data is not None]


def verify_state_consistency(state: Store) -> bool:
    """Tell whether tables, checkpoints and replay agree with the pages."""
    return not state.verify()


def compute_diff(old: State, new: State) -> StateDiff:
    """Return what differs between two states."""
    return diff_states(old, new)


def get_stats(state: Store) -> StoreStats:
    """Return what the store is and did."""
    return state.stats()


def print_stats(state: Store) -> None:
    """Write the same to the standard output, a line each."""
    told: dict[str, Any] = msgspec.to_builtins(state.stats())
    counters = told.pop("counters")
    sys.stdout.writelines(f"{name}: {value}\n" for name, value in {**told, **counters}.items())
