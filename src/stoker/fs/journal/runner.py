"""The thread that drives a member: it brings etcd's answers, what watches see and the time to the state machine.

All of the member's steps run on this one thread; whoever wants something of it sends a function.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from stoker.core.clock import monotonic_ns
from stoker.core.errors import StokerError
from stoker.fs.journal.etcd import Etcd, Outcome, Seen, UnknownOutcomeError, Watch, ask
from stoker.fs.journal.member import Member
from stoker.fs.meta.kv import prefix_end

_WATCH_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.05


class Runner:
    """Runs until closed. `step` is called with the time after every step of the member."""

    def __init__(self, etcd: Etcd, member: Member, step: Callable[[int], None]) -> None:
        self.member = member
        self.failure: StokerError | None = None
        self._etcd = etcd
        self._step = step
        self._inbox: queue.SimpleQueue[Callable[[int], object]] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name="stoker-journal", daemon=True),
            threading.Thread(target=self._follow, name="stoker-journal-watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def send(self, action: Callable[[int], object]) -> None:
        """Have a function called on the thread, with the time."""
        self._inbox.put(action)

    def close(self) -> None:
        """End the threads."""
        self._closing.set()
        self._inbox.put(lambda _: None)
        for thread in self._threads:
            thread.join(timeout=10)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._take()
            now_ns = monotonic_ns()
            try:
                self.member.tick(now_ns)
                self._step(now_ns)
            except StokerError as error:
                self._failed(error)
            while self.member.outbox:
                token, request = self.member.outbox.popleft()
                self._etcd.begin(request).add_done_callback(self._reply(token))

    def _take(self) -> None:
        """Wait for what comes next, or for what is due, then do all that is there."""
        wait_seconds = (self.member.due_ns(monotonic_ns()) - monotonic_ns()) / 1e9
        try:
            action = self._inbox.get(timeout=max(wait_seconds, 0.0005))
        except queue.Empty:
            return
        while True:
            try:
                action(monotonic_ns())
            except StokerError as error:
                self._failed(error)
            try:
                action = self._inbox.get_nowait()
            except queue.Empty:
                return

    def _failed(self, error: StokerError) -> None:
        """Keep an error of the journal's content: who asks is told, and it is read again in a while."""
        self.failure = error
        self.member.step_down(error)
        self.member.poll_later(monotonic_ns())

    def _reply(self, token: int) -> Callable[["Future[Outcome]"], None]:
        def done(future: "Future[Outcome]") -> None:
            error = future.exception()
            outcome = error if isinstance(error, StokerError) else future.result()
            self._inbox.put(lambda now_ns: self.member.replied(token, outcome, now_ns))

        return done

    def _follow(self) -> None:
        """Watch the journal; a watch that breaks is begun anew, and what was missed in between is polled."""
        prefix = self.member.keys.prefix
        while not self._closing.is_set():
            watch: Watch | None = None
            try:
                start = ask(self._etcd, self.member.keys.entries(1 << 62, 1), 1).revision
                watch = self._etcd.watch(prefix, prefix_end(prefix), start)
                self._inbox.put(self.member.poll_soon)
                self._see(watch)
            except StokerError:
                self._closing.wait(_AGAIN_SECONDS)
            finally:
                if watch is not None:
                    watch.close()

    def _see(self, watch: Watch) -> None:
        while not self._closing.is_set():
            seen = watch.next(_WATCH_SECONDS)
            if seen is None:
                continue
            self._inbox.put(self._hint(seen))
            if seen.compacted:
                raise UnknownOutcomeError("watch was left behind by a compaction")

    def _hint(self, seen: Seen) -> Callable[[int], object]:
        return lambda now_ns: self.member.hinted(seen, now_ns)
