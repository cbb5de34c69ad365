"""The other end of a publication: takes whole tensors, indices and values, or the wire codec; says when it has them.

`python -m benchmarks.pages.peer PORT`: connects, and answers each version with the XXH3-64 of all tensors.
"""

import socket
import struct
import sys

import numpy as np

from stoker.kernels.checking import xxh3_64
from stoker.pages.wire import decode_wire

HEAD = struct.Struct("<BIQ")
FULL, INDEX, WIRE, END, NEW = range(5)


def receive(connection: socket.socket, size: int) -> bytearray:
    """Return so many bytes."""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
    return data


def take(tensors: dict[int, np.ndarray], kind: int, number: int, body: bytearray) -> None:
    """Change one tensor, uint16 of shape (elements,), as a message says."""
    if kind in (NEW, FULL):
        tensors[number] = np.frombuffer(body, np.uint16)
    elif kind == INDEX:
        count = len(body) // 6
        places = np.frombuffer(body, np.int32, count)
        tensors[number][places] = np.frombuffer(body, np.uint16, count, 4 * count)
    else:
        decode_wire(tensors[number], body, tensors[number])


def main() -> None:
    """Serve one connection."""
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        tensors: dict[int, np.ndarray] = {}
        while True:
            try:
                kind, number, size = HEAD.unpack(receive(connection, HEAD.size))
            except EOFError:
                return
            if kind == END:
                digest = 0
                for key in sorted(tensors) if size else ():
                    digest ^= xxh3_64(tensors[key].data)
                connection.sendall(digest.to_bytes(8, "little"))
            else:
                take(tensors, kind, number, receive(connection, size))


if __name__ == "__main__":
    main()
