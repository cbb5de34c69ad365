"""`/health` and `/metrics` of a chunk server over HTTP, on loopback alone: they know no token."""

import http.server
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from stoker.core.errors import UnavailableError, UsageError
from stoker.fs.chunk.disk_process import Beat
from stoker.fs.chunk.supervisor import DiskView
from stoker.fs.wire.keys import address_text, is_loopback

_TIMEOUT_SECONDS: Final = 5.0
_Value = Callable[[DiskView], float | None]


def _told(value_of: Callable[[Beat], float]) -> _Value:
    """Return a value of what the disk last told, None before it told anything."""
    return lambda view: None if view.beat is None else float(value_of(view.beat))


METRICS: Final[tuple[tuple[str, str, str, _Value], ...]] = (
    ("up", "gauge", "1 while the disk is served and may be written", lambda view: float(view.healthy)),
    ("restarts_total", "counter", "times its process was started again", lambda view: float(view.restarts)),
    ("connections", "gauge", "clients that are connected", _told(lambda beat: beat.connections)),
    ("fenced", "gauge", "1 while writes are refused for want of a master", _told(lambda beat: beat.fenced)),
    ("capacity_bytes", "gauge", "size of the disk", _told(lambda beat: beat.status.capacity_bytes)),
    ("free_bytes", "gauge", "room for shards", _told(lambda beat: beat.status.free_bytes)),
    ("used_bytes", "gauge", "what shards take", _told(lambda beat: beat.status.used_bytes)),
    ("shards", "gauge", "shards on the disk", _told(lambda beat: beat.status.shards)),
    ("bad_shards", "gauge", "shards that are damaged", _told(lambda beat: beat.status.bad_shards)),
    ("errors_total", "counter", "errors of the disk", _told(lambda beat: beat.status.errors)),
    ("scrubbed_bytes_total", "counter", "bytes read again", _told(lambda beat: beat.status.scrub.checked_bytes)),
    (
        "oldest_unscrubbed_seconds",
        "gauge",
        "since when some shard was not read again",
        _told(lambda beat: beat.status.scrub.oldest_unscrubbed_seconds),
    ),
)


def metrics_text(views: Sequence[DiskView]) -> str:
    """Return the metrics of all disks in the text format of Prometheus (version 0.0.4)."""
    return "".join(line + "\n" for line in _lines(views))


def _lines(views: Sequence[DiskView]) -> Iterator[str]:
    for short, kind, about, value_of in METRICS:
        name = f"stoker_chunk_{short}"
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} {kind}"
        for view in views:
            value = value_of(view)
            if value is not None:
                labels = f'disk="{_escaped(view.disk)}",folder="{_escaped(view.folder)}"'
                yield f"{name}{{{labels}}} {value:.17g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class AdminServer:
    """Answers monitors until it is closed; `address` tells where. Raises UsageError beyond loopback."""

    def __init__(self, host: str, port: int, views: Callable[[], Sequence[DiskView]]) -> None:
        if not is_loopback(host):
            raise UsageError(
                "the admin port knows no token",
                where=host,
                expected="an address of loopback",
                remedy="let a proxy that asks for one stand before it",
            )
        try:
            self._server = http.server.ThreadingHTTPServer((host, port), _handler(views))
        except OSError as error:
            raise UnavailableError(
                "address cannot be listened on", where=address_text(host, port), got=error.strerror or str(error)
            ) from error
        self._server.daemon_threads = True
        self.address = address_text(host, int(self._server.server_address[1]))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="stoker-chunk-admin")
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(views: Callable[[], Sequence[DiskView]]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS

        def do_GET(self) -> None:
            now = views()
            if self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", metrics_text(now).encode())
            elif self.path == "/health":
                healthy = all(view.healthy for view in now)
                document = msgspec.json.encode({"healthy": healthy, "disks": now})
                self._answer(200 if healthy else 503, "application/json", document)
            else:
                self._answer(404, "text/plain", b"/health or /metrics\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: monitors ask every few seconds."""

    return Handler
