"""Device edges of the graph: what hangs by them on a changed page is refreshed on its device.

After a wave each device is refreshed once, devices by name and pages by id, and the wave ends when all devices are
done. A page written by its user, not by a wave, counts as one: at once in the mode `immediate`, else with the next
`stabilize`.
"""

from collections.abc import Sequence

from stoker.core.clock import wall_ns
from stoker.pages.devices.copies import DevicePages, Refreshed
from stoker.pages.graph import EdgeKind, Event, EventKind, Propagation


class DeviceWaves:
    """Refreshes copies behind the waves of one graph.

    waves  how many there were, of those that had something to refresh
    last   what the last one did
    """

    def __init__(self, copies: DevicePages, graph: Propagation) -> None:
        self._copies = copies
        self._graph = graph
        self._due: set[int] = set()
        self.waves = 0
        self.last = Refreshed([], [], [], [])
        # One lock for both: a wave asks for the copies while it holds the graph's, a commit of copies begins a wave.
        copies.lock = graph.lock
        graph.device_hook = self.run
        copies.store.listeners.append(self._committed)

    def _committed(self, lsn: int, pages: Sequence[int]) -> None:
        """Note what hangs on pages that somebody of this process committed."""
        children = {child for page in pages for child in self._graph.graph.children(page, EdgeKind.DEVICE)}
        if not children:
            return
        with self._copies.lock:
            self._due |= children
            if self._graph.mode == "immediate" and not self._graph.running:
                self.settle()

    def run(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Refresh what hangs on the pages of a wave, and what was noted before; the graph calls it."""
        self._due |= {child for _, child in pairs}
        self.settle()

    def settle(self) -> None:
        """Refresh what is due, and wait until all devices are done."""
        with self._copies.lock:
            due = sorted(page for page in self._due if self._copies.has(page))
            self._due.clear()
            if not due:
                return
            self.last = self._copies.refresh(due)
            self._copies.barrier()
            self.waves += 1
        self._tell([*self.last.by_delta, *self.last.whole])

    def _tell(self, pages: Sequence[int]) -> None:
        if len(self._graph.events):
            lsn, now_ns = self._copies.store.lsn, wall_ns()
            done = EventKind.GPU_SYNC_COMPLETE
            self._graph.events.emit(Event(done, page, 0, lsn, now_ns) for page in sorted(pages))
