"""What ranks and their conductor say to each other over TCP: JSON, an object a line, after a token that both know."""

import socket
from typing import Any, Final, Literal

import msgspec
import psutil

from stoker.bench.workloads.progress import Progress
from stoker.core import clock
from stoker.core.errors import StokerError

LINE_BYTES_MAX: Final = 1 << 30
"""A rank's steps travel in one line."""
HELLO_BYTES_MAX: Final = 1 << 12
"""Until the token was right nobody may make us keep more."""
BEATS_A_DEADLINE: Final = 6
_TRY_SECONDS: Final = 2.0


class Said(msgspec.Struct, omit_defaults=True):
    """A rank's line. `arrive` asks for the barrier, `give` hands over what is gathered, `bye` is its orderly end."""

    kind: Literal["hello", "beat", "arrive", "give", "failed", "bye"]
    token: str = ""
    rank: int = 0
    host: str = ""
    pid: int = 0
    stop: bool = False
    text: str = ""
    code: int = 0
    data: bytes = b""
    progress: Progress | None = None


class Told(msgspec.Struct, omit_defaults=True):
    """The conductor's line.

    `welcome` has the deadline in seconds and the task, `go` lets a rank out of the barrier, `pong` answers a sign of
    life, `stop` passes on the number of a signal, `abort` calls the run off and says why.
    """

    kind: Literal["welcome", "refused", "go", "pong", "stop", "abort", "bye"]
    stop: bool = False
    text: str = ""
    data: bytes = b""


class Place(msgspec.Struct, frozen=True):
    """Where a conductor listens: its addresses, one of which a rank can reach, the port, and the token."""

    addresses: tuple[str, ...]
    port: int
    token: str

    def text(self) -> str:
        """Return it as one word, for an environment variable."""
        return f"{'|'.join(self.addresses)}/{self.port}/{self.token}"


def place_of(text: str) -> Place | None:
    """Return the place that a word names, None for one that is none."""
    parts = text.split("/")
    if len(parts) != 3 or not parts[1].isdecimal() or not 0 < int(parts[1]) < 65536 or not parts[0]:
        return None
    return Place(tuple(parts[0].split("|")), int(parts[1]), parts[2])


def own_addresses() -> tuple[str, ...]:
    """Return the addresses of this host, those that other hosts can reach first."""
    found = [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6) and "%" not in address.address
    ]
    return tuple(sorted(found, key=lambda each: (each.startswith("127.") or each == "::1", ":" in each)))


class Wire:
    """One connection, lines in and out; for one reader and one writer at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.bytes_max = LINE_BYTES_MAX
        self._incoming = bytearray()
        self._searched = 0

    def send(self, line: Said | Told) -> None:
        """Send a line. Raises OSError when the other side is gone."""
        self.socket.sendall(msgspec.json.encode(line) + b"\n")

    def take(self, piece: bytes) -> list[bytes]:
        """Return the lines that are whole with this piece. Raises ValueError for one that is too long."""
        self._incoming += piece
        end = self._incoming.rfind(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._incoming)
            if self._searched > self.bytes_max:
                raise ValueError("too long a line")
            return []
        lines = bytes(self._incoming[:end]).split(b"\n")
        del self._incoming[: end + 1]
        self._searched = 0
        return lines

    def close(self) -> None:
        """Close it; closing twice is harmless."""
        self.socket.close()


def reach(place: Place, hello: Said, *, seconds: float) -> tuple[Wire, Told]:
    """Return a connection to the conductor and its welcome; each address is tried in turn until one answers.

    Raises StokerError when none does in time, or the conductor refuses.
    """
    deadline_ns = clock.monotonic_ns() + round(seconds * 1e9)
    last = "no address"
    while True:
        for address in place.addresses:
            try:
                return _knock(address, place, hello)
            except (OSError, ValueError, msgspec.DecodeError) as error:
                last = f"{address}: {str(error) or type(error).__name__}"
        if clock.monotonic_ns() >= deadline_ns:
            raise StokerError("conductor cannot be reached", where=" ".join(place.addresses), got=last)
        clock.sleep(0.2)


def _knock(address: str, place: Place, hello: Said) -> tuple[Wire, Told]:
    connection = socket.create_connection((address, place.port), _TRY_SECONDS)
    wire = Wire(connection)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(_TRY_SECONDS * 5)
        wire.send(msgspec.structs.replace(hello, token=place.token))
        answer = read_line(wire, Told)
        connection.settimeout(None)
    except BaseException:
        wire.close()
        raise
    if answer.kind != "welcome":
        wire.close()
        raise StokerError("conductor refuses this rank", where=address, got=answer.text)
    return wire, answer


def read_line(wire: Wire, kind: Any) -> Any:
    """Return the next line, waiting for it. Raises ConnectionError at the end, ValueError for a bad line.

    For the beginning of a conversation alone: more than one line at a time is an error.
    """
    while True:
        piece = wire.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("the connection ended")
        lines = wire.take(piece)
        if lines:
            if len(lines) > 1:
                raise ValueError("several lines at once")
            return msgspec.json.decode(lines[0], type=kind)
