"""The flow of one epoch on one rank: readers, decoders, and the batches in the making, in strict order.

Readers take work in the order of the plan, decoders finish them in any order, and the consumer gets the batches in
order. How far reading runs ahead is bounded three ways: by batches, by bytes, and by the steps of the epoch. The work
next in line is always admitted when the batch to be handed over next needs it; so the flow cannot lock up, however
large a sample is and however small the bounds.
"""

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from stoker.core import clock
from stoker.core.errors import StokerError, UnavailableError
from stoker.loader.batch import Assembler, Part, Slot
from stoker.loader.decode import Decoder
from stoker.loader.fetch import Fetcher, Loaded, LoadedBundle
from stoker.loader.options import LoaderOptions
from stoker.loader.order import Int64s
from stoker.loader.pacing import Pace
from stoker.loader.stalls import BATCH
from stoker.loader.tally import Tally
from stoker.loader.tasks import Bundle, Planner, Work

CLOSE_SECONDS: Final = 300.0
"""How long closing waits for reads that have begun: longer than any store's own deadline."""
EXIT_SECONDS: Final = 10.0
"""How long the end of the program waits for them."""


_RUNNING: Final[weakref.WeakSet["Flow"]] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End the threads of loaders that were forgotten, while the interpreter still stands.

    A daemon thread that comes back from native code when it does not any more takes the whole process down.
    """
    flows = list(_RUNNING)
    for flow in flows:
        flow.stop()
    deadline_ns = clock.monotonic_ns() + int(EXIT_SECONDS * 1e9)
    for flow in flows:
        flow.join(deadline_ns)


class Bounds:
    """How far reading may run ahead. `tasks_min` reads are kept under way, where several samples are read as one."""

    def __init__(self, options: LoaderOptions, in_flight_bytes_max: int, tasks_min: int) -> None:
        self.batches = options.prefetch_batches
        self.bytes_max = in_flight_bytes_max
        self.tasks_min = tasks_min if options.prefetch_batches else 0


class Stages:
    """What works on a task, one after the other, and how many readers at what pace."""

    def __init__(self, fetcher: Fetcher, decoder: Decoder, assembler: Assembler, tally: Tally, pace: Pace) -> None:
        self.pace = pace
        self.fetcher = fetcher
        self.decoder = decoder
        self.assembler = assembler
        self.tally = tally


class Flow:
    """Owns the threads. They know nothing of the loader, so a forgotten loader is collected and ends them."""

    def __init__(self, planner: Planner, stages: Stages, options: LoaderOptions, bounds: Bounds) -> None:
        plan = planner.plan
        self._epoch, self._steps_before = plan.epoch, plan.steps_before
        self._stages = stages
        self._bounds = bounds
        self._process = os.getpid()
        lock = threading.RLock()  # the collector may call `stop` inside any of our own critical sections
        self._may_read = threading.Condition(lock)
        self._may_take = threading.Condition(lock)
        self._may_join = threading.Condition(lock)
        self._slots: dict[int, Slot] = {}
        self._work = planner.work(self._open_batch, readers=stages.pace.settings.readers)
        self._head: Work | None = None
        self._handed_over = self._asked = plan.first_step
        self._in_flight_bytes = 0
        self._open_tasks = 0
        self._failure: tuple[int, BaseException] | None = None
        self._stopped = False
        self._decoding: SimpleQueue[list[Loaded] | LoadedBundle | None] = SimpleQueue()
        self._readers, self._decoders = 0, options.decode_threads
        self._threads: list[threading.Thread] = []

    def start_once(self) -> None:
        """Start the threads, unless they run. They are daemons: a program that forgets its loader still ends."""
        if self._threads:
            return
        tally = self._stages.tally
        tally.active[:] = [None] * len(tally.active)
        self._stages.pace.begin()
        for number in range(self._decoders):
            self._start(self._decode_on, len(tally.active) - self._decoders + number, "decode")
        self._start_readers()

    def _start_readers(self) -> None:
        """Start the readers that are missing; those that are too many wait for work in vain."""
        while self._readers < self._stages.pace.settings.readers:
            self._start(self._read_on, self._readers, "read")
            self._readers += 1

    def _start(self, work: Callable[[int], None], worker: int, name: str) -> None:
        thread = threading.Thread(target=work, args=(worker,), name=f"stoker-{name}-{worker}", daemon=True)
        self._threads.append(thread)
        _RUNNING.add(self)
        thread.start()

    def take(self, step: int) -> Slot:
        """Return the finished batch of `step`, waiting for it; steps are taken one after the other.

        Raises what went wrong while it was made.
        """
        with self._may_take:
            assert step == self._handed_over
            self._asked = step + 1
            self._wake_reader()
            while True:
                slot = self._slots.get(step)
                if slot is not None and slot.ready:
                    break
                if self._failure is not None and self._failure[0] <= step:
                    raise self._failure[1]
                if self._stopped:
                    raise StokerError("loader was closed while a batch was waited for")
                self._may_take.wait()
            del self._slots[step]
            self._handed_over = step + 1
            self._in_flight_bytes -= slot.released_bytes
            self._open_tasks -= slot.released_tasks
            self._wake_reader()
        if self._stages.pace.consumer_took():
            self._start_readers()
            with self._may_join:
                self._may_join.notify_all()
        return slot

    def stop(self) -> None:
        """Ask the threads to end; they finish the read they are in. Callable from anywhere, any number of times."""
        if os.getpid() != self._process:
            return  # after a fork: the threads stayed behind, and so did whoever held the lock
        with self._may_read:
            self._stopped = True
            self._head = None
            self._may_read.notify_all()
            self._may_take.notify_all()
            self._may_join.notify_all()
        for _ in range(self._decoders):
            self._decoding.put(None)

    def close(self) -> None:
        """Stop and wait for the threads. Raises UnavailableError when a read does not come back at all."""
        self.stop()
        if os.getpid() != self._process:
            return
        self._stages.pace.end()
        left = self.join(clock.monotonic_ns() + int(CLOSE_SECONDS * 1e9))
        if left is not None:
            raise UnavailableError(
                "a read did not end", where=left.name, expected=f"within {CLOSE_SECONDS:g} s of closing"
            )
        self._threads.clear()

    def join(self, deadline_ns: int) -> threading.Thread | None:
        """Wait for the threads to end; return the first that has not by then."""
        if os.getpid() != self._process:
            return None
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, (deadline_ns - clock.monotonic_ns()) / 1e9))
                if thread.is_alive():
                    return thread
        return None

    def _open_batch(self, step: int, sample_ids: Int64s) -> None:
        self._slots[step] = Slot(self._epoch, self._steps_before + step, sample_ids)

    def _read_on(self, worker: int) -> None:
        fetcher = self._stages.fetcher
        work: Work | None = None
        try:
            fetcher.open_worker(worker)
            while True:
                work = None
                work = self._next_work(worker)
                if work is None:
                    return
                loaded = (
                    fetcher.read_bundle(work, worker) if isinstance(work, Bundle) else fetcher.read(work.tasks, worker)
                )
                if self._decoders:
                    self._hand_on(loaded)
                else:
                    self._decode(loaded, worker)
                del loaded  # a thread that waits must not keep a buffer from going back
        except BaseException as error:
            self._fail(self._handed_over if work is None else work.step, error)
        finally:
            fetcher.close_worker(worker)

    def _hand_on(self, loaded: list[Loaded] | LoadedBundle) -> None:
        """Give to the decoders what was read, in as many parts as they can share."""
        if isinstance(loaded, LoadedBundle) or self._decoders == 1 or not self._stages.decoder.shares:
            self._decoding.put(loaded)
            return
        for item in loaded:
            self._decoding.put([item])

    def _decode_on(self, worker: int) -> None:
        while True:
            loaded = self._decoding.get()
            if loaded is None:
                return
            try:
                if not self._stopped:
                    self._decode(loaded, worker)
            except BaseException as error:
                self._fail(_step_of(loaded), error)
            del loaded

    def _next_work(self, worker: int) -> Work | None:
        """Return what to read next once it may be read, None when there is none or nothing more is wanted."""
        with self._may_read:
            while not self._stopped and self._failure is None:
                head = self._planned_head()
                if head is None:
                    self._may_read.notify_all()
                    self._may_join.notify_all()
                    return None
                if worker >= self._stages.pace.settings.readers:
                    self._wake_reader()  # what woke this one is another's work
                    self._may_join.wait()
                elif self._admitted(head):
                    self._admit(head)
                    self._planned_head()
                    self._wake_reader()
                    return head
                else:
                    self._may_read.wait()
        return None

    def _planned_head(self) -> Work | None:
        if self._head is None:
            self._head = next(self._work, None)
        return self._head

    def _wake_reader(self) -> None:
        """Wake one reader if what comes next may be read now; that one wakes the next, so none wakes in vain."""
        if self._head is None or self._admitted(self._head):
            self._may_read.notify()

    def _admitted(self, work: Work) -> bool:
        near = work.step < self._asked + self._bounds.batches
        if near and work.step <= self._handed_over:
            return True
        fits = self._in_flight_bytes + work.size_bytes <= self._bounds.bytes_max
        return fits and (near or self._open_tasks < self._bounds.tasks_min)

    def _admit(self, work: Work) -> None:
        self._head = None
        self._in_flight_bytes += work.size_bytes
        for last_step, size_bytes, tasks in work.releases():
            self._open_tasks += tasks
            slot = self._slots[last_step]
            slot.released_bytes += size_bytes
            slot.released_tasks += tasks

    def _decode(self, loaded: list[Loaded] | LoadedBundle, worker: int) -> None:
        """Decode what was read and put its samples into their batches; complete those that miss nothing more."""
        if isinstance(loaded, LoadedBundle):
            step = loaded.bundle.step
            part = self._stages.decoder.decode_bundle(loaded, worker)
            self._hold(step, [part], worker)
            self._place(step, [part], loaded.requested_bytes, worker)
            return
        first_step = loaded[0].task.step
        together: list[Part] = []
        requested_bytes = 0
        for item in loaded:
            requested_bytes += item.requested_bytes
            for step, parts in self._stages.decoder.decode(item, worker):
                self._hold(step, parts, worker)
                if step == item.task.last_step == first_step:
                    together += parts  # small samples of one batch: placed in one go
                else:
                    self._place(step, parts, requested_bytes, worker)
                    requested_bytes = 0  # counts for the first batch that needs it
        if together:
            self._place(first_step, together, requested_bytes, worker)

    def _hold(self, step: int, parts: list[Part], worker: int) -> None:
        decoder = self._stages.decoder
        if decoder.holds:
            decoder.hold(step, self._slots[step], parts, worker)

    def _place(self, step: int, parts: list[Part], requested_bytes: int, worker: int) -> None:
        slot = self._slots[step]
        with self._may_take:
            slot.parts.extend(parts)
            slot.batch.requested_bytes += requested_bytes
            slot.missing -= sum(len(part.places) for part in parts)
            complete = slot.missing == 0
        if complete:
            self._complete(step, slot, worker)

    def _complete(self, step: int, slot: Slot, worker: int) -> None:
        tally = self._stages.tally
        begun_ns = tally.begin(worker, BATCH, step)
        copied_bytes = self._stages.assembler.finish(slot)
        tally.end(worker, BATCH, step, begun_ns)
        ledger = tally.ledgers[worker]
        ledger.copied_bytes += copied_bytes
        ledger.wanted_bytes += slot.batch.payload_bytes
        with self._may_take:
            slot.ready = True
            if step < self._asked:
                self._may_take.notify_all()
        tally.fold_if_many()

    def _fail(self, step: int, error: BaseException) -> None:
        """Keep the failure of the earliest step; batches before it are still handed over."""
        self._stages.tally.consumer.errors += 1
        with self._may_take:
            if self._failure is None or step < self._failure[0]:
                self._failure = (step, error)
            self._may_read.notify_all()
            self._may_take.notify_all()
            self._may_join.notify_all()


def _step_of(loaded: list[Loaded] | LoadedBundle) -> int:
    return loaded.bundle.step if isinstance(loaded, LoadedBundle) else loaded[0].task.step
