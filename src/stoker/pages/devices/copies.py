"""The copies of pages that one process has on its devices.

copies = store.devices                      # or DevicePages(store, device="cuda")
copies.push([page])                         # the newest bytes go to the device
with copies.edit([page]) as tensors:        # what is changed in them is committed: only the difference crosses the bus
    tensors[0].mul_(2)
copies.refresh()                            # what others committed meanwhile comes to the device

The bytes in shared memory are the truth that others see. A copy is behind them until it is refreshed, or before them
from `changing` (or `edit`) until it is committed. `push`, `announce`, `commit` and `take_back` log where pages are.
"""

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from stoker.kernels.deltas import two_level_diff
from stoker.pages.batch import Batch, page_id
from stoker.pages.devices.changes import ChangeLog, Steps
from stoker.pages.devices.home import DeviceHome, checked_device
from stoker.pages.devices.lanes import Arrival
from stoker.pages.devices.routing import kept_crossover
from stoker.pages.devices.slabs import Place
from stoker.pages.errors import Conflict, PageNotFound
from stoker.pages.frames import Location, Residency
from stoker.pages.interchange import need_torch
from stoker.pages.page import Page, typed_tensor
from stoker.pages.store import Store

SLAB_BYTES: Final = 64 << 20
STAGING_BYTES: Final = 16 << 20
_PUSH_BYTES: Final = 64 << 20
"""Of pages that go to a device at once: that much is needed there for the time of the copy."""
AnyPage = int | Page


class Copy:
    """A copy of one page. `epoch` and `lsn` are those of the bytes it was last equal to."""

    def __init__(self, page: int, home: DeviceHome, place: Place, epoch: int, lsn: int) -> None:
        self.page = page
        self.home = home
        self.place = place
        self.epoch = epoch
        self.lsn = lsn
        self.changing = False
        self.shadowed = False
        self.tensor: Any = None


class Refreshed(msgspec.Struct, frozen=True):
    """What one `refresh` did: pages brought on by differences, pages that came whole, and what is in the way.

    conflicts  pages that somebody changed on the host while they are being changed on the device
    gone       pages that were freed; so are their copies
    """

    by_delta: list[int]
    whole: list[int]
    conflicts: list[int]
    gone: list[int]


class DevicePages:
    """Copies of a store's pages on devices of this process. Calls may come from any thread, one at a time runs.

    device           where pages go when nothing else is told; `auto` is CUDA where it is there, else the host
    kernels          see `stoker.pages.devices.kernels`
    bytes_max        of memory on each device
    crossover_bytes  pins what `routing` keeps: smaller batches are compared on the host
    """

    def __init__(
        self,
        store: Store,
        *,
        device: str = "auto",
        kernels: str = "auto",
        slab_bytes: int = SLAB_BYTES,
        staging_bytes: int = STAGING_BYTES,
        bytes_max: int | None = None,
        crossover_bytes: int | None = None,
    ) -> None:
        self.store = store
        self._default = str(checked_device(need_torch("pages on a device"), device))
        self._kernels = kernels
        self._sizes: dict[str, Any] = {
            "slab_bytes": slab_bytes,
            "staging_bytes": staging_bytes,
            "bytes_max": bytes_max,
        }
        self.crossover_bytes = crossover_bytes
        self._homes: dict[str, DeviceHome] = {}
        self._copies: dict[int, Copy] = {}
        self._log = ChangeLog(store.arena)
        self.lock = threading.RLock()

    # -- what there is -------------------------------------------------------------------------------------------

    def home(self, device: str = "") -> DeviceHome:
        """Return what is on a device, the default one without a name. Raises DeviceError for a missing one."""
        torch = need_torch("pages on a device")
        name = str(checked_device(torch, device)) if device else self._default
        with self.lock:
            if name not in self._homes:
                self._homes[name] = DeviceHome(name, kernels=self._kernels, **self._sizes)
            return self._homes[name]

    @property
    def homes(self) -> list[DeviceHome]:
        """All devices in use, by name."""
        return [self._homes[name] for name in sorted(self._homes)]

    @property
    def copies(self) -> list[Copy]:
        """All copies, by page."""
        return [self._copies[page] for page in sorted(self._copies)]

    def has(self, page: AnyPage) -> bool:
        """Tell whether this process has a copy of a page."""
        return page_id(page) in self._copies

    def copy_of(self, page: AnyPage) -> Copy:
        """Return the copy of a page. Raises PageNotFound where this process has none."""
        found = self._copies.get(page_id(page))
        if found is None:
            raise PageNotFound("page has no copy on a device of this process", where=str(page_id(page)))
        return found

    def tensor(self, page: AnyPage) -> Any:
        """Return the copy as a tensor, of the page's type and shape: the copy's own memory, valid until it is freed.

        Write to it inside `edit`, or between `changing` and `commit`; a `refresh` overwrites other writes.
        """
        copy = self.copy_of(page)
        if copy.tensor is None:
            copy.tensor = typed_tensor(copy.home.torch, copy.place.bytes, self.store.meta_of(copy.page))
        return copy.tensor

    # -- to the device -------------------------------------------------------------------------------------------

    def push(self, pages: Sequence[AnyPage], device: str = "", *, mode: str = "device", stream: Any = None) -> Arrival:
        """Have the newest bytes of pages on a device, and log that they are there. Pages there already are refreshed.

        stream  of torch, to copy on; without it the device's own. The call may return before the copies are done

        Raises DeviceError with nothing logged where the device is missing or full, Conflict for a page that is being
        changed on a device.
        """
        with self.lock:
            home = self.home(device)
            moved = [page_id(page) for page in pages if not self._is_at(page_id(page), home, mode)]
            stay = [page_id(page) for page in pages if self._is_at(page_id(page), home, mode)]
            self._require_unchanged(moved)
            if stay:
                self.refresh(stay)
            arrival = self._bring(moved, home, mode, stream)
            self._log_arrivals([*moved, *stay], mode)
            return arrival

    def prefetch(self, pages: Sequence[AnyPage], device: str = "") -> Arrival:
        """Bring pages to a device ahead of their use, without a word in the log; unified memory is moved there."""
        with self.lock:
            home = self.home(device)
            numbers = [page_id(page) for page in pages]
            for page in numbers:
                if page in self._copies and self._copies[page].home is home:
                    home.prefetch(self._copies[page].place, to_host=False)
            return self._bring([page for page in numbers if page not in self._copies], home, "device", None)

    def ensure(self, page: AnyPage, device: str = "") -> Any:
        """Return the tensor of a page on a device, up to date: pushed or refreshed when it is not."""
        with self.lock:
            copy = self._copies.get(page_id(page))
            if copy is None or copy.home is not self.home(device):
                self.push([page], device)
            elif not copy.changing:
                self.refresh([page])
            return self.tensor(page)

    def add_new(self, page: int, size_bytes: int, device: str, mode: str) -> None:
        """Take a page of zeros that a commit under way makes; `forget` undoes it."""
        with self.lock:
            home = self.home(device)
            place = home.take(size_bytes, mode)
            home.zero([place])
            self._copies[page] = Copy(page, home, place, 0, 0)

    def _is_at(self, page: int, home: DeviceHome, mode: str) -> bool:
        copy = self._copies.get(page)
        return copy is not None and copy.home is home and copy.place.slab.mode == mode

    def _require_unchanged(self, pages: Sequence[int]) -> None:
        for page in pages:
            if page in self._copies and self._copies[page].changing:
                raise Conflict("page is being changed on its device", where=str(page), remedy="commit or discard it")

    def _bring(self, pages: Sequence[int], home: DeviceHome, mode: str, stream: Any) -> Arrival:
        arrival = Arrival()
        for chunk in self._chunks(dict.fromkeys(pages)):
            taken: list[Place] = []
            read = [self.store.arena.read(page) for page in chunk]
            try:
                for _, data in read:
                    taken.append(home.take(data.size, mode))
                arrival = home.put(taken, [data for _, data in read], stream=stream)
            except BaseException:
                for place in taken:
                    home.give(place)
                raise
            for page, place, (facts, _) in zip(chunk, taken, read, strict=True):
                self.forget(page)
                self._copies[page] = Copy(page, home, place, facts.epoch, facts.lsn)
        return arrival

    def _chunks(self, pages: Sequence[int] | dict[int, None]) -> Iterator[list[int]]:
        chunk: list[int] = []
        total = 0
        for page in pages:
            size = self.store.arena.facts(page).size_bytes
            if chunk and total + size > _PUSH_BYTES:
                yield chunk
                chunk, total = [], 0
            chunk.append(page)
            total += size
        if chunk:
            yield chunk

    def _log_arrivals(self, pages: Sequence[int], mode: str) -> None:
        location = Location.UNIFIED if mode == "unified" else Location.DEVICE
        known = (self.store.arena.facts(page) for page in pages)
        fresh = [facts.page for facts in known if (facts.location, facts.residency) != (location, Residency.BOTH)]
        if fresh:
            with self.store.batch() as batch:
                for page in fresh:
                    batch.move(page, location, Residency.BOTH)

    # -- changing on the device ----------------------------------------------------------------------------------

    def changing(self, pages: Sequence[AnyPage]) -> list[Any]:
        """Return the tensors of pages, brought up to date, to be written; `commit` or `discard` ends it.

        The bytes as they are now are noted on the device: `commit` finds there what was written. Raises DeviceError
        where there is no room for that.
        """
        with self.lock:
            chosen = [self.copy_of(page) for page in pages]
            self.refresh([copy.page for copy in chosen if not copy.changing])
            for home, copies in _by_home([copy for copy in chosen if not copy.shadowed]):
                home.keep_shadows([copy.place for copy in copies])
            for copy in chosen:
                copy.changing = copy.shadowed = True
            return [self.tensor(page) for page in pages]

    def announce(self, pages: Sequence[AnyPage]) -> int:
        """Log that the bytes on the device are newer than those that others see. Returns the LSN."""
        with self.lock, self.store.batch() as batch:
            for page in pages:
                location = Location(batch.commit.facts(self.copy_of(page).page).location)
                batch.move(page, location, Residency.BOTH_DEVICE_NEWER)
        return batch.lsn

    @contextmanager
    def edit(self, pages: Sequence[AnyPage], *, source: str = "") -> Iterator[list[Any]]:
        """Give tensors of pages to write; what was changed is one commit when the block ends.

        Nothing is committed when the block raises: the copies are as before. Raises as `changing` and `commit`.
        """
        tensors = self.changing(pages)
        try:
            yield tensors
        except BaseException:
            self.discard(pages)
            raise
        self.commit(pages, source=source)

    def commit(self, pages: Sequence[AnyPage] | None = None, *, source: str = "", durability: str = "") -> int:
        """Commit what was written to copies since `changing`, of all pages that are being changed or of these.

        Compared on the device above the crossover, and then only what differs crosses the bus; else on the host.
        Returns the LSN. Raises Conflict when somebody changed a page meanwhile: then nothing is committed, and `sync`
        or `discard` decides; OutOfSpace when it is more than a commit takes.
        """
        with self.lock:
            chosen = (
                self.copies if pages is None else [self.copy_of(page) for page in dict.fromkeys(map(page_id, pages))]
            )
            chosen = [copy for copy in chosen if copy.changing]
            payloads: dict[int, bytes] = {}
            settling = []
            for home, copies in _by_home(chosen):
                places = [copy.place for copy in copies]
                if sum(place.size_bytes for place in places) < self.crossover(home):
                    found, kept = self._changes_on_host(home, copies), None
                else:
                    found, kept = home.changes(places)
                settling.append((home, copies, kept))
                payloads |= zip((copy.page for copy in copies), found, strict=True)
            with self.store.batch(source=source, durability=durability) as batch:
                for copy in chosen:
                    self._put(batch, copy, payloads[copy.page])
            self._settle(settling, payloads, batch.lsn)
            return batch.lsn

    def _put(self, batch: Batch, copy: Copy, payload: bytes) -> None:
        batch.apply_delta(copy.page, payload, expect_epoch=copy.epoch)
        facts = batch.commit.facts(copy.page)
        if facts.residency == Residency.BOTH_DEVICE_NEWER:
            batch.move(copy.page, Location(facts.location), Residency.BOTH)

    def _changes_on_host(self, home: DeviceHome, copies: Sequence[Copy]) -> list[bytes]:
        found = []
        for copy, fresh in zip(copies, home.get([copy.place for copy in copies]), strict=True):
            facts, base = self.store.arena.read(copy.page)
            if facts.epoch != copy.epoch:
                raise Conflict("page was changed meanwhile", where=str(copy.page), expected=f"epoch {copy.epoch}")
            found.append(two_level_diff(base.data, fresh.data)[0])
        return found

    def _settle(
        self, settling: Sequence[tuple[DeviceHome, list[Copy], Any]], payloads: dict[int, bytes], lsn: int
    ) -> None:
        for home, copies, kept in settling:
            if kept is None:
                home.keep_shadows([copy.place for copy in copies])
            else:
                home.settle(kept)
            for copy in copies:
                copy.changing = False
                if payloads[copy.page]:
                    copy.epoch, copy.lsn = copy.epoch + 1, lsn

    def crossover(self, home: DeviceHome) -> int:
        """Return the bytes from which on a batch is compared on the device."""
        return kept_crossover(home) if self.crossover_bytes is None else self.crossover_bytes

    def discard(self, pages: Sequence[AnyPage]) -> None:
        """Give up what was written to copies since `changing`: they get the newest committed bytes."""
        with self.lock:
            for copy in [self.copy_of(page) for page in pages]:
                copy.changing = False
                self._renew(copy)

    def sync(self, pages: Sequence[AnyPage], *, prefer: str = "device", source: str = "") -> int:
        """Bring both sides together, and return the LSN.

        prefer  whose bytes stay where both changed a page: `device` writes its whole page over what others committed,
                `host` gives up what was written on the device
        """
        with self.lock:
            self.refresh()
            behind = [copy for copy in map(self.copy_of, pages) if copy.changing and self._is_behind(copy)]
            if prefer == "host":
                self.discard([copy.page for copy in behind])
            else:
                self._overrule(behind, source)
            return self.commit(pages, source=source)

    def _overrule(self, copies: Sequence[Copy], source: str) -> None:
        for home, group in _by_home(copies):
            images = home.get([copy.place for copy in group])
            with self.store.batch(source=source) as batch:
                for copy, image in zip(group, images, strict=True):
                    batch.write(copy.page, image)
            for copy in group:
                copy.changing = False
            self.refresh([copy.page for copy in group])

    # -- from the host -------------------------------------------------------------------------------------------

    def refresh(self, pages: Sequence[AnyPage] | None = None) -> Refreshed:
        """Bring copies, all or these, to what is committed: by what changed in them, where the log still has it.

        A page that is being changed on its device is left alone, and told as a conflict.
        """
        with self.lock:
            self._log.read(self._copies)
            numbers = list(self._copies) if pages is None else [page_id(page) for page in pages]
            done = Refreshed([], [], [], [])
            steps: dict[int, Steps] = {}
            for copy in (self.copy_of(page) for page in sorted(set(numbers))):
                try:
                    self._plan(copy, steps, done)
                except PageNotFound:
                    self.forget(copy.page)
                    done.gone.append(copy.page)
            self._run(steps)
            return done

    def _is_behind(self, copy: Copy) -> bool:
        return self.store.arena.facts(copy.page).epoch != copy.epoch

    def _plan(self, copy: Copy, steps: dict[int, Steps], done: Refreshed) -> None:
        if not self._is_behind(copy):
            self._log.forget(copy.page)
            return
        if copy.changing:
            done.conflicts.append(copy.page)
            return
        found = self._log.steps(copy.page, copy.epoch, copy.lsn, copy.place.size_bytes)
        if found.whole:
            self._renew(copy)
            done.whole.append(copy.page)
            return
        steps[copy.page] = found
        done.by_delta.append(copy.page)

    def _run(self, steps: dict[int, Steps]) -> None:
        """Apply the first difference of all pages, then the second: each round is one batch a device."""
        waiting = {page: list(found.payloads) for page, found in steps.items()}
        while waiting:
            for home, copies in _by_home([self._copies[page] for page in waiting]):
                home.apply([copy.place for copy in copies], [waiting[copy.page].pop(0) for copy in copies])
            waiting = {page: payloads for page, payloads in waiting.items() if payloads}
        for page, found in steps.items():
            self._copies[page].epoch, self._copies[page].lsn = found.epoch, found.lsn

    def _renew(self, copy: Copy) -> None:
        """Bring the whole page; it gets another place where its size changed."""
        facts, data = self.store.arena.read(copy.page)
        if data.size != copy.place.size_bytes:
            place = copy.home.take(data.size, copy.place.slab.mode)
            copy.home.give(copy.place)
            copy.place, copy.tensor, copy.shadowed = place, None, False
        copy.home.put([copy.place], [data])
        copy.epoch, copy.lsn = facts.epoch, facts.lsn

    # -- the end -------------------------------------------------------------------------------------------------

    def take_back(self, pages: Sequence[AnyPage]) -> int:
        """Commit what is being changed, free the copies, and log that the pages live on the host. Returns the LSN."""
        with self.lock:
            self.commit([page for page in pages if page_id(page) in self._copies])
            with self.store.batch() as batch:
                for page in pages:
                    batch.move(page, Location.HOST, Residency.HOST)
            for page in pages:
                self.forget(page_id(page))
            return batch.lsn

    def forget(self, page: int) -> None:
        """Free the copy of a page, if there is one; what was written to it and not committed is lost."""
        with self.lock:
            copy = self._copies.pop(page, None)
            if copy is not None:
                copy.home.give(copy.place)

    def close(self) -> None:
        """Free all copies."""
        with self.lock:
            for page in list(self._copies):
                self.forget(page)
            self._homes.clear()

    def barrier(self) -> None:
        """Return when all that was queued for all devices is done."""
        for home in self.homes:
            home.lane.barrier()


def _by_home(copies: Sequence[Copy]) -> list[tuple[DeviceHome, list[Copy]]]:
    """Return copies by device, devices by name."""
    groups: dict[str, list[Copy]] = defaultdict(list)
    for copy in copies:
        groups[copy.home.name].append(copy)
    return [(groups[name][0].home, groups[name]) for name in sorted(groups)]
