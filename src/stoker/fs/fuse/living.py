"""A sign of life of a mount's server, by which `umount` notices that all is written and closed."""

import socket
from types import TracebackType
from typing import Final, Self

_CALLERS: Final = 16


class SignOfLife:
    """A socket that lives as long as this context: who is connected to it is cut off when that ends."""

    def __init__(self) -> None:
        self._listener: socket.socket | None = None

    def show(self, device: str) -> None:
        """Live from now on, for the mount of a device. When somebody else has the address, nobody can wait for us."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(_address(device))
            listener.listen(_CALLERS)
        except OSError:
            listener.close()
            return
        self._listener = listener

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        if self._listener is not None:
            self._listener.close()


def watch_life(device: str) -> socket.socket | None:
    """Return a connection to the server of a mount, None when it has none."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        channel.connect(_address(device))
    except OSError:
        channel.close()
        return None
    return channel


def await_end(channel: socket.socket | None, seconds: float) -> bool:
    """Wait until the server that `channel` is connected to has ended; tell whether it has."""
    if channel is None:
        return True
    with channel:
        channel.settimeout(max(seconds, 0.001))
        try:
            return channel.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def _address(device: str) -> str:
    """Return an abstract address, which needs no file."""
    return f"\0stoker-mount-{device}"
