"""The ranks' meeting over TCP, on the conductor's side: who is alive, the barrier, what is gathered. One thread.

It says when a rank is lost, with its host: at once when its connection ends before its time, and after the deadline
when nothing is heard of it, because it was stopped, hangs, or its link is cut. What follows is the caller's affair.
"""

import hmac
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from stoker.bench.run.hosts.lines import HELLO_BYTES_MAX, LINE_BYTES_MAX, Place, Said, Told, Wire, own_addresses
from stoker.bench.run.hosts.roll import Roll
from stoker.bench.workloads.progress import Progress
from stoker.core import clock

_POLL_SECONDS: Final = 0.2
_PIECE_BYTES: Final = 1 << 20
_HELLO_NS: Final = 10_000_000_000
_SEND_SECONDS: Final = 5.0


class _Guest:
    """A connection: nobody's until its hello was right."""

    def __init__(self, wire: Wire, now_ns: int) -> None:
        self.wire, self.since_ns, self.rank = wire, now_ns, -1


class Meeting:
    """The conductor's side. `on_lost` gets a sentence on each rank that is lost; both callbacks run on our thread."""

    def __init__(
        self,
        ranks: int,
        *,
        deadline_seconds: float,
        on_lost: Callable[[str], None],
        on_progress: Callable[[dict[int, Progress]], None] = lambda _: None,
        task: bytes = b"",
        port: int = 0,
        token: str = "",
    ) -> None:
        """Begin to listen. Raises OSError when the port is taken."""
        self.roll = Roll(ranks, deadline_ns=round(deadline_seconds * 1e9))
        self.given: dict[int, bytes] = {}
        self.said: dict[int, Said] = {}
        self._on_lost, self._on_progress, self._task = on_lost, on_progress, task
        self._guests: dict[int, _Guest] = {}
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._listener = socket.create_server(("", port), backlog=4096)
        self._listener.setblocking(False)
        self.place = Place(own_addresses(), self._listener.getsockname()[1], token or secrets.token_hex(16))
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="stoker-meeting", daemon=True)
        self._thread.start()

    def wait(self, reached: Callable[["Meeting"], bool], seconds: float) -> bool:
        """Wait until something came true of the meeting; return whether it did in time."""
        with self._changed:
            return self._changed.wait_for(lambda: reached(self), seconds)

    def take_part(self, host: str, pid: int) -> None:
        """Enter this very process as rank 0."""
        with self._changed:
            self.roll.join(0, host, pid, clock.monotonic_ns())

    def note_own(self, progress: Progress | None, *, finished: bool = False) -> None:
        """Note how far this process's rank is, or that it has done its work."""
        with self._changed:
            self.roll.heard(0, clock.monotonic_ns(), progress)
            if finished:
                self.roll.finished(0, clock.monotonic_ns())

    def ask_stop(self) -> None:
        """Have all ranks stop at the next step."""
        with self._changed:
            self.roll.ask_stop()

    def pass_on(self, number: int) -> None:
        """Have every rank that is here act as if a signal had come to it."""
        self._tell_all(Told("stop", text=str(number)))

    def abort(self, reason: str) -> None:
        """Call the run off: every rank that is here is told why."""
        self._tell_all(Told("abort", text=reason))

    def _tell_all(self, told: Told) -> None:
        with self._changed:
            for guest in list(self._guests.values()):
                if guest.rank >= 0:
                    self._tell(guest, told)

    def close(self) -> None:
        """End the thread and all connections; closing twice is harmless."""
        self._ending.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        last_ns = clock.monotonic_ns()
        try:
            while not self._ending.is_set():
                ready = self._selector.select(_POLL_SECONDS)
                with self._changed:
                    for key, _ in ready:
                        self._accept() if key.data is None else self._hear(key.data)
                    now_ns = clock.monotonic_ns()
                    if now_ns - last_ns > self.roll.deadline_ns // 2:  # it was we who were stopped
                        self.roll.forgive(now_ns)
                    last_ns = now_ns
                    self._look_for_lost(now_ns)
                    self._changed.notify_all()
        finally:
            for guest in list(self._guests.values()):
                guest.wire.close()
            self._listener.close()
            self._selector.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.settimeout(_SEND_SECONDS)
                wire = Wire(connection)
                wire.bytes_max = HELLO_BYTES_MAX
                guest = _Guest(wire, clock.monotonic_ns())
                self._guests[connection.fileno()] = guest
                self._selector.register(connection, selectors.EVENT_READ, guest)

    def _hear(self, guest: _Guest) -> None:
        try:
            piece = guest.wire.socket.recv(_PIECE_BYTES if guest.rank >= 0 else HELLO_BYTES_MAX)
            lines = guest.wire.take(piece) if piece else None
            if lines is None:
                return self._leave(guest, "ended: its connection was closed")
            for line in lines:
                self._take(guest, msgspec.json.decode(line, type=Said))
        except ConnectionResetError:  # so ends a killed process that had not read all we told it
            return self._leave(guest, "ended: its connection was closed")
        except (OSError, ValueError, msgspec.DecodeError) as error:
            self._leave(guest, f"is lost: {str(error) or type(error).__name__}")
        return None

    def _take(self, guest: _Guest, said: Said) -> None:
        now_ns = clock.monotonic_ns()
        if guest.rank < 0:
            self._welcome(guest, said, now_ns)
            return
        rank = guest.rank
        if said.kind == "beat":
            self.roll.heard(rank, now_ns, said.progress)
            self.said[rank] = said
            self._tell(guest, Told("pong", text=str(clock.wall_ns())))
            if said.progress is not None:
                self._on_progress(self.roll.told())
        elif said.kind == "arrive":
            self._arrive(rank, said.stop, now_ns)
        elif said.kind == "give":
            self.roll.finished(rank, now_ns)
            self.given[rank] = said.data
        elif said.kind == "failed":
            self._lose(guest, f"failed: {said.text}")
        elif said.kind == "bye":
            self.said[rank] = said
            self.roll.ended(rank, now_ns)
            self._tell(guest, Told("bye"))

    def _welcome(self, guest: _Guest, said: Said, now_ns: int) -> None:
        """Let a rank in whose token is right; nobody else learns anything."""
        if said.kind != "hello" or not hmac.compare_digest(said.token.encode(), self.place.token.encode()):
            raise ValueError("not one of ours")
        refused = self.roll.hello(said.rank, said.host, said.pid, now_ns)
        if refused:
            self._tell(guest, Told("refused", text=refused))
            raise ValueError(refused)
        guest.rank, guest.wire.bytes_max = said.rank, LINE_BYTES_MAX
        self.said[said.rank] = said
        self._tell(guest, Told("welcome", text=f"{self.roll.deadline_ns / 1e9}", data=self._task))

    def _arrive(self, rank: int, stop: bool, now_ns: int) -> None:
        answer = self.roll.arrive(rank, now_ns, stop=stop)
        if answer is None:
            return
        self._tell_all(Told("go", stop=answer))

    def _tell(self, guest: _Guest, told: Told) -> None:
        try:
            guest.wire.send(told)
        except (BrokenPipeError, ConnectionResetError):
            self._leave(guest, "ended: its connection was closed")
        except OSError:
            self._leave(guest, "is lost: it takes no more messages")

    def _look_for_lost(self, now_ns: int) -> None:
        for guest in [each for each in self._guests.values() if each.rank < 0 and now_ns - each.since_ns > _HELLO_NS]:
            self._leave(guest, "")
        for sentence in self.roll.overdue(now_ns):
            self._on_lost(sentence)

    def _lose(self, guest: _Guest, reason: str) -> None:
        sentence = self.roll.gone(guest.rank, reason) if guest.rank >= 0 else ""
        if sentence:
            self._on_lost(sentence)

    def _leave(self, guest: _Guest, reason: str) -> None:
        descriptor = guest.wire.socket.fileno()
        if descriptor < 0:
            return
        del self._guests[descriptor]
        self._selector.unregister(guest.wire.socket)
        guest.wire.close()
        self._lose(guest, reason)
