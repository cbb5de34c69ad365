"""Weights over a socket: each worker gets the elements that changed since the version it has, without loss.

The server keeps one snapshot for each worker, as of what that worker has, and sends the difference to the newest
publication in the wire codec. A worker takes a version whole or not at all. As `FrameServer`, it listens on the
loopback address unless told otherwise, wants a token, and encrypts nothing.
"""

import socket
import threading
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stoker.core.clock import monotonic_ns, sleep
from stoker.core.errors import UsageError
from stoker.pages.errors import FormatError, PagesError, Timeout
from stoker.pages.follow.listener import Listener
from stoker.pages.follow.messages import PROTOCOL, ConnectionLost, prompt, receive_within, send
from stoker.pages.snapshot import Snapshot
from stoker.pages.store import Store
from stoker.pages.weights import PREFIX, Manifest, Weights, manifest_in, take_bytes, tensors_of
from stoker.pages.wire import decode_wire, encode_wire

_POLL_SECONDS: Final = 0.002
_IDLE_SECONDS: Final = 1.0
_CHUNK_BYTES_MAX: Final = 1 << 30


class WeightServer(Listener):
    """Serves the weights that a store publishes under a name. Close it.

    sent_bytes, full_bytes  of all versions sent so far: as sent, and as whole tensors
    """

    def __init__(self, store: Store, *, token: str, name: str = PREFIX, host: str = "127.0.0.1", port: int = 0) -> None:
        self._store = store
        self._name = name
        self._counting = threading.Lock()
        self.sent_bytes = self.full_bytes = 0
        super().__init__(token=token, host=host, port=port)

    def serve(self, connection: socket.socket, hello: dict[str, Any]) -> None:
        """Send each version as it is published, until the worker goes."""
        with ExitStack() as held:
            before: Snapshot | None = None
            version, idle_seconds = 0, 0.0
            while not self.stopping():
                snapshot = held.enter_context(self._store.snapshot()) if self._moved(before) else None
                manifest = manifest_in(self._store, snapshot, self._name) if snapshot else None
                if snapshot and (manifest is None or manifest.version == version):
                    snapshot.close()
                elif snapshot and manifest:
                    self._send_version(connection, manifest, before, snapshot)
                    if before:
                        before.close()
                    before, version, idle_seconds = snapshot, manifest.version, 0.0
                    continue
                sleep(_POLL_SECONDS)
                idle_seconds += _POLL_SECONDS
                if idle_seconds >= _IDLE_SECONDS:
                    send(connection, {"alive": version})
                    idle_seconds = 0.0

    def _moved(self, before: Snapshot | None) -> bool:
        return before is None or self._store.lsn > before.lsn

    def _send_version(
        self, connection: socket.socket, manifest: Manifest, before: Snapshot | None, now: Snapshot
    ) -> None:
        for number, facts in enumerate(manifest.tensors):
            for index, page in enumerate(facts.pages):
                image = now.image(page)
                if before and image.lsn <= before.lsn:
                    continue
                old = before.view(page) if before else np.zeros(image.size_bytes, np.uint8)
                blob = encode_wire(old, image.data, image.elem_width)
                send(connection, {"tensor": number, "chunk": index, "size": image.size_bytes}, blob)
                with self._counting:
                    self.sent_bytes += len(blob)
        with self._counting:
            self.full_bytes += sum(facts.size_bytes for facts in manifest.tensors)
        layout = [[facts.name, [now.image(page).size_bytes for page in facts.pages]] for facts in manifest.tensors]
        send(connection, {"version": manifest.version, "layout": layout})


class WeightClient:
    """Follows a `WeightServer`. `version` is that of the newest whole version taken; `received_bytes` counts all.

    Raises ConnectionLost when the server is gone or refuses: connect again, and all comes anew.
    """

    def __init__(self, host: str, port: int, *, token: str) -> None:
        self._connection = prompt(socket.create_connection((host, port), timeout=10.0))
        send(self._connection, {"protocol": PROTOCOL, "token": token})
        self.version = 0
        self.received_bytes = 0
        self._chunks: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._coming: dict[tuple[int, int], NDArray[np.uint8]] = {}

    def wait(self, timeout_seconds: float) -> list[tuple[str, int, NDArray[np.uint8]]]:
        """Return the next version's changed chunks: tensor, byte offset in it, its bytes as uint8 of shape (n,).

        Raises Timeout; ConnectionLost when the server is gone or refuses; FormatError and PagesError for a message that
        makes no sense, ChecksumError for a damaged one.
        """
        deadline_ns = monotonic_ns() + int(timeout_seconds * 1e9)
        while (left_ns := deadline_ns - monotonic_ns()) > 0:
            message = receive_within(self._connection, left_ns / 1e9)
            if message is None:
                break
            head, body = message
            if "error" in head:
                self.close()
                raise ConnectionLost("server of weights refused", got=str(head["error"]))
            if "tensor" in head:
                self._take((int(head["tensor"]), int(head["chunk"])), int(head["size"]), bytes(body))
            elif "version" in head:
                return self._finish(int(head["version"]), head["layout"])
        raise Timeout("no new weights came in time", expected=f"a version after {self.version}")

    def _take(self, chunk: tuple[int, int], size_bytes: int, blob: bytes) -> None:
        if not 0 < size_bytes <= _CHUNK_BYTES_MAX:
            raise FormatError("chunk of weights has no size", got=str(size_bytes))
        self.received_bytes += len(blob)
        old = self._chunks.get(chunk)
        self._coming[chunk] = decode_wire(np.zeros(size_bytes, np.uint8) if old is None else old, blob)

    def _finish(self, version: int, layout: list[Any]) -> list[tuple[str, int, NDArray[np.uint8]]]:
        changed = []
        for (tensor, chunk), data in sorted(self._coming.items()):
            name, sizes = layout[tensor]
            if data.size != sizes[chunk]:
                raise PagesError("chunk of weights has another size", where=str(name), got=str(data.size))
            changed.append((str(name), sum(sizes[:chunk]), data))
        self._chunks.update(self._coming)
        self._coming.clear()
        self.version = version
        return changed

    def apply(self, model: Weights, timeout_seconds: float = 60.0) -> int:
        """Bring a model to the next version, and return it. Raises Timeout, ConnectionLost, UsageError."""
        changed = self.wait(timeout_seconds)
        targets = tensors_of(model)
        missing = sorted({name for name, *_ in changed} - targets.keys())
        if missing:
            raise UsageError("model has no such tensor", where=missing[0])
        for name, start, data in changed:
            take_bytes(targets[name], start, data)
        return self.version

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
