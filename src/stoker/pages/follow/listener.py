"""A listening socket whose clients show a token first; each is served by a thread.

It listens on the loopback address unless told otherwise. Nothing is encrypted: beyond one host, put it behind a tunnel.
"""

import hmac
import socket
import threading
from abc import ABC, abstractmethod
from typing import Final, Self

from stoker.core.errors import UsageError
from stoker.pages.errors import PagesError
from stoker.pages.follow.messages import ConnectionLost, Head, prompt, receive, send

TOKEN_BYTES_MIN: Final = 16
_HELLO_SECONDS: Final = 5.0
_SEND_SECONDS: Final = 60.0
_ACCEPT_SECONDS: Final = 0.2


class Listener(ABC):
    """Serves clients until it is closed; `address` tells where. Raises UsageError for a token that is too short."""

    def __init__(self, *, token: str, host: str = "127.0.0.1", port: int = 0) -> None:
        if len(token) < TOKEN_BYTES_MIN:
            raise UsageError("token of a server is too short", expected=f"at least {TOKEN_BYTES_MIN} characters")
        self._token = token.encode()
        self._listener = socket.create_server((host, port))
        self._listener.settimeout(_ACCEPT_SECONDS)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepter = threading.Thread(target=self._accept, daemon=True, name="stoker-pages-accept")
        self._accepter.start()

    @abstractmethod
    def serve(self, connection: socket.socket, hello: Head) -> None:
        """Serve one client that showed the token; return when `stopping()`."""

    def stopping(self) -> bool:
        """Tell whether it is being closed."""
        return self._stopping.is_set()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                connection = prompt(self._listener.accept()[0])
            except TimeoutError:
                continue
            except OSError:
                return
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._admit, args=(connection,), daemon=True, name="stoker-pages-serve")
            self._threads.append(thread)
            thread.start()

    def _admit(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_HELLO_SECONDS)
            try:
                hello, _ = receive(connection, body_bytes_max=0)
                if not hmac.compare_digest(str(hello.get("token", "")).encode(), self._token):
                    send(connection, {"error": "token is wrong"})
                    return
                connection.settimeout(_SEND_SECONDS)
                self.serve(connection, hello)
            except (ConnectionLost, TimeoutError):
                return  # the client comes again when it wants to
            except PagesError as error:
                _tell(connection, str(error))

    def close(self) -> None:
        """Stop serving; clients see the connection end. Twice is no error."""
        self._stopping.set()
        self._listener.close()
        self._accepter.join()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        """Use it as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _tell(connection: socket.socket, sentence: str) -> None:
    try:
        send(connection, {"error": sentence})
    except ConnectionLost:
        return
