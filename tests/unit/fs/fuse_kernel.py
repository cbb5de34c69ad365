"""A kernel in a test: makes requests as bytes, gives them to a dispatcher, and takes its answers apart."""

import struct
from typing import Any

from stoker.fs.client.client import Client
from stoker.fs.fuse import protocol as p
from stoker.fs.fuse.dispatch import Dispatcher
from stoker.fs.fuse.options import MountOptions
from stoker.fs.fuse.state import Callers, State
from stoker.fs.meta import Volume
from stoker.fs.store.memory import MemorySliceStore

OFFERED = p.WANTED | 1 << 16 | 1 << 24  # with some that nobody wants
INIT_BODY = struct.pack("=IIIII44x", 7, 45, 131072, OFFERED & 0xFFFFFFFF, OFFERED >> 32)


def request(opcode: int, unique: int, node: int, body: bytes = b"", uid: int = 0, gid: int = 0, pid: int = 0) -> bytes:
    """Return a request as the kernel sends it."""
    return p.IN_HEADER.pack(p.IN_HEADER.size + len(body), opcode, unique, node, uid, gid, pid, 0, 0) + body


class Kernel:
    """Asks a dispatcher over a volume in memory."""

    def __init__(self, options: MountOptions | None = None, volume: Volume | None = None) -> None:
        self.volume = volume or Volume.format("memory://")
        self.client = Client(self.volume, MemorySliceStore(), threads=False)
        self.later: list[tuple[int, int]] = []
        self.notices: list[bytes] = []
        self.complaints: list[str] = []
        self.state = State(
            self.client,
            options or MountOptions(),
            free_bytes=lambda: 1 << 30,
            answer=lambda unique, number: self.later.append((unique, number)),
            notify=lambda parts: self.notices.append(b"".join(parts)),
            callers=Callers(),
        )
        self.dispatcher = Dispatcher(self.state, self.complaints.append)
        self.unique = 1
        self.error, self.init = self.ask(p.INIT, 0, INIT_BODY)

    def give(self, message: bytes) -> Any:
        """Give bytes, and return the answer as it came."""
        return self.dispatcher.answer(memoryview(bytearray(message)))

    def ask(self, opcode: int, node: int = 1, body: bytes = b"", **who: int) -> tuple[int, bytes]:
        """Send a request; return the errno and the body of the answer, -1 when there is none."""
        self.unique += 2
        answer = self.give(request(opcode, self.unique, node, body, **who))
        if answer is None:
            return -1, b""
        data = b"".join(answer.buffers)
        length, error, unique = p.OUT_HEADER.unpack_from(data)
        assert length == len(data)
        assert unique == self.unique
        return -error, data[p.OUT_HEADER.size :]

    def done(self, opcode: int, node: int = 1, body: bytes = b"", **who: int) -> bytes:
        """Send a request that must succeed; return the body of the answer."""
        error, data = self.ask(opcode, node, body, **who)
        assert error == 0
        return data

    def made(self, name: bytes, flags: int = 0o102) -> tuple[int, int]:
        """Create a file; return its inode and the number it is open by."""
        data = self.done(p.CREATE, 1, struct.pack("=IIII", flags, 0o100644, 0o022, 0) + name + b"\0")
        return struct.unpack_from("=Q", data)[0], struct.unpack_from("=Q", data, p.ENTRY_OUT.size + p.ATTR.size)[0]

    def listed(self, number: int, offset: int, size: int = 4096, *, plus: bool = False) -> list[tuple[bytes, int, int]]:
        """Read a directory; return the names, inodes and offsets of what comes next."""
        body = struct.pack("=QQIIQII", number, offset, size, 0, 0, 0, 0)
        data = self.done(p.READDIRPLUS if plus else p.READDIR, 1, body)
        found, place = [], 0
        while place < len(data):
            place += p.ENTRY_OUT.size + p.ATTR.size if plus else 0
            ino, after, length, _ = p.DIRENT.unpack_from(data, place)
            found.append((data[place + 24 : place + 24 + length], ino, after))
            place += 24 + length + -length % 8
        return found

    def close(self) -> None:
        """Give everything back."""
        self.state.locks.stop()
        self.client.close()
        self.volume.close()


def lock_body(number: int, owner: int, kind: int, start: int = 0, end: int = 2**63 - 1, flags: int = 0) -> bytes:
    """Return the body of a request about a lock."""
    return struct.pack("=QQQQIIII", number, owner, start, end, kind, 77, flags, 0)
