"""Virtual time, and blocking code that runs in it: one thing runs at a time, and what runs next follows from the seed.

Product code blocks: it waits for disks, masters and other calls. Each such activity is a fiber: a thread that holds the
baton alone, and gives it back where it would wait. So there is no concurrency that the seed does not decide.
"""

import heapq
import threading
from collections import deque
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, ClassVar

MS = 1_000_000
SECOND = 1000 * MS
STUCK_SECONDS = 60.0


class Killed(BaseException):
    """Raised where a fiber waits whose process has ended: it unwinds and is gone."""


class Process:
    """What crashes together; `life` tells its lives apart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.life = 0
        self.alive = True
        self.stopped_until_ns = 0
        self.fibers: dict[int, Fiber] = {}


class Fiber:
    """An activity: what it does, what came of it, and who waits for that."""

    def __init__(self, number: int, process: Process, action: Callable[[], Any]) -> None:
        self.number = number
        self.process = process
        self.action = action
        self.value: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.killed = False
        self.turn = 0
        self.waiters: list[tuple[Fiber, int]] = []
        self.worker: _Worker | None = None

    def done(self) -> bool:
        """Tell whether it has returned or raised."""
        return self.finished

    def result(self) -> Any:
        """Return what it returned, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return self.value


class _Worker:
    """A thread that runs one fiber after the other, and only when it is given the baton."""

    idle: ClassVar[deque["_Worker"]] = deque()

    def __init__(self) -> None:
        self.wake = threading.Lock()
        self.wake.acquire()
        self.job: tuple[Loop, Fiber] | None = None
        threading.Thread(target=self._run, daemon=True, name="sim-fiber").start()

    def _run(self) -> None:
        while True:
            self.wake.acquire()
            assert self.job is not None
            loop, fiber = self.job
            try:
                fiber.value = fiber.action()
            except Killed:
                fiber.killed = True
            except BaseException as error:
                fiber.error = error
            self.job = None
            _Worker.idle.append(self)
            loop.ended(fiber)


class Loop:
    """The clock and what is due. `now_ns` is the same for all; each process's wall clock may differ from it."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.current: Fiber | None = None
        self.failure: BaseException | None = None
        self._queue: list[tuple[int, int, Callable[[], object]]] = []
        self._order = 0
        self._fibers = 0
        self._baton = threading.Lock()
        self._baton.acquire()
        self.after: Callable[[], object] = lambda: None

    # -- events

    def at(self, delay_ns: int, action: Callable[[], object]) -> None:
        """Have something done later."""
        self._order += 1
        heapq.heappush(self._queue, (self.now_ns + max(delay_ns, 0), self._order, action))

    def run(self, until_ns: int) -> None:
        """Let things happen up to a moment. Raises what a fiber of the world itself raised."""
        while self._queue and self._queue[0][0] <= until_ns:
            self.now_ns, _, action = heapq.heappop(self._queue)
            action()
            if self.failure is not None:
                raise self.failure
            self.after()
        self.now_ns = until_ns

    # -- fibers

    def spawn(self, process: Process, action: Callable[[], Any], delay_ns: int = 0) -> Fiber:
        """Begin an activity of a process."""
        if self.current is not None and self.current.killed:
            raise Killed
        self._fibers += 1
        fiber = Fiber(self._fibers, process, action)
        process.fibers[fiber.number] = fiber
        self.at(delay_ns, partial(self._start, fiber))
        return fiber

    def _start(self, fiber: Fiber) -> None:
        if fiber.killed:
            return
        fiber.worker = _Worker.idle.pop() if _Worker.idle else _Worker()
        fiber.worker.job = (self, fiber)
        self._give(fiber)

    def _give(self, fiber: Fiber) -> None:
        """Hand the baton to a fiber until it waits or ends."""
        assert fiber.worker is not None
        before, self.current = self.current, fiber
        fiber.worker.wake.release()
        if not self._baton.acquire(timeout=STUCK_SECONDS):
            raise AssertionError(f"a fiber of {fiber.process.name} waits for something that no fiber brings")
        self.current = before

    def ended(self, fiber: Fiber) -> None:
        """Note that a fiber has ended, and give the baton back; called by its thread."""
        fiber.finished = True
        fiber.process.fibers.pop(fiber.number, None)
        if isinstance(fiber.error, AssertionError):
            self.failure = self.failure or fiber.error
        for waiter, turn in fiber.waiters:
            self.at(0, partial(self.resume, waiter, turn))
        self._baton.release()

    def resume(self, fiber: Fiber, turn: int) -> None:
        """Let a fiber go on that waits in this turn; one whose process is stopped goes on when that wakes up."""
        if fiber.turn != turn or fiber.finished or fiber.killed:
            return
        asleep_ns = fiber.process.stopped_until_ns - self.now_ns
        if asleep_ns > 0:
            self.at(asleep_ns, partial(self.resume, fiber, turn))
            return
        self._give(fiber)

    def park(self) -> None:
        """Wait, in a fiber, until `resume` is called for the turn that `mark` gave."""
        fiber = self.current
        assert fiber is not None and fiber.worker is not None
        self._baton.release()
        fiber.worker.wake.acquire()
        fiber.turn += 1
        if fiber.killed:
            raise Killed

    def mark(self) -> tuple[Fiber, int]:
        """Return what `resume` takes to wake the fiber that runs now."""
        assert self.current is not None
        if self.current.killed:
            raise Killed
        return self.current, self.current.turn

    def sleep(self, delay_ns: int) -> None:
        """Let time pass for the fiber that runs."""
        self.at(delay_ns, partial(self.resume, *self.mark()))
        self.park()

    def wait(self, fibers: Collection[Fiber], delay_ns: int | None) -> None:
        """Wait until one of some fibers has ended, or for a time."""
        if any(fiber.finished for fiber in fibers):
            return
        mark = self.mark()
        for fiber in fibers:
            fiber.waiters.append(mark)
        if delay_ns is not None:
            self.at(delay_ns, partial(self.resume, *mark))
        self.park()
        for fiber in fibers:
            if mark in fiber.waiters:
                fiber.waiters.remove(mark)

    def kill(self, process: Process) -> None:
        """End a process: its fibers unwind where they wait."""
        process.alive = False
        process.life += 1
        for fiber in list(process.fibers.values()):
            fiber.killed = True
            if fiber.worker is not None and fiber is not self.current:
                self._give(fiber)
        process.fibers.clear()

    def begin_again(self, process: Process) -> None:
        """Have a process that ended run once more."""
        process.alive = True
        process.life += 1  # what was sent to it while it was down is for nobody
        process.stopped_until_ns = 0


class FiberLanes:
    """`Lanes` of a process: calls are fibers."""

    def __init__(self, loop: Loop, process: Process) -> None:
        self._loop = loop
        self._process = process

    def begin(self, call: Callable[[], Any]) -> Fiber:
        """Begin a call."""
        return self._loop.spawn(self._process, call)

    def wait(self, tasks: Collection[Any], seconds: float | None) -> None:
        """Return when one of the tasks is done, or so many seconds have passed."""
        self._loop.wait(tasks, None if seconds is None else max(int(seconds * 1e9), 1))

    def clock(self) -> float:
        """Return seconds of virtual time."""
        return self._loop.now_ns / 1e9

    def close(self) -> None:
        """Do nothing: the process's end ends them."""
