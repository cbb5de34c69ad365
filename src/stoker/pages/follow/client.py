"""Receiving a store's frames from another process or host."""

import socket
from typing import Final

import numpy as np

from stoker.pages.errors import FormatError, PagesError
from stoker.pages.follow.messages import PROTOCOL, ConnectionLost, Head, prompt, receive, receive_within, send
from stoker.pages.follow.tail import split
from stoker.pages.frames import Frame
from stoker.pages.images import PageImage

_CONNECT_SECONDS: Final = 10.0


class SocketFollower:
    """Follows a `FrameServer`. `images` holds the pages as of `lsn` when the server sent them (`fresh`), else none.

    since, uuid  what this side has already; with them only the frames behind come

    Raises ConnectionLost when the server is gone or refuses; connect again, with the LSN reached. Raises FormatError
    for a server of another protocol.
    """

    def __init__(self, host: str, port: int, *, token: str, since: int = 0, uuid: str = "") -> None:
        try:
            self._connection = prompt(socket.create_connection((host, port), timeout=_CONNECT_SECONDS))
        except OSError as error:
            raise ConnectionLost("server of pages does not answer", where=f"{host}:{port}", got=str(error)) from error
        send(self._connection, {"protocol": PROTOCOL, "token": token, "since": since, "uuid": uuid})
        hello, _ = self._receive()
        if hello.get("protocol") != PROTOCOL:
            raise FormatError("server speaks another protocol", expected=str(PROTOCOL), got=str(hello.get("protocol")))
        self.uuid, self.lsn, self.fresh = str(hello["uuid"]), int(hello["lsn"]), bool(hello["fresh"])
        self._salt = int(hello["salt"])
        self.images = [self._image() for _ in range(int(hello["pages"]))]

    def _receive(self) -> tuple[Head, bytearray]:
        return self._checked(receive(self._connection))

    def _checked(self, message: tuple[Head, bytearray]) -> tuple[Head, bytearray]:
        head, body = message
        if "error" in head:
            self.close()
            raise ConnectionLost("server of pages refused", got=str(head["error"]))
        return head, body

    def _image(self) -> PageImage:
        head, body = self._receive()
        return PageImage(data=np.frombuffer(body, np.uint8), **head)

    def poll(self) -> list[Frame]:
        """Return the frames that have come; none when none have."""
        return self.wait(0.0)

    def wait(self, timeout_seconds: float) -> list[Frame]:
        """Return the next frames, none when the time is over.

        Raises ConnectionLost; PagesError when some were left out.
        """
        message = receive_within(self._connection, timeout_seconds)
        if message is None:
            return []
        head, body = self._checked(message)
        if "frames" not in head:
            return []
        frames = [frame for frame in split(bytes(body), self._salt) if frame.lsn > self.lsn]
        if frames and frames[0].lsn != self.lsn + 1:
            raise PagesError("server left out frames", expected=f"LSN {self.lsn + 1}", got=f"LSN {frames[0].lsn}")
        if frames:
            self.lsn = frames[-1].lsn
        return frames

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
