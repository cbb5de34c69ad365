"""The page of a cluster: rendered here, read-only, on loopback, with nothing from elsewhere; it refreshes itself."""

import http.server
import threading
from collections.abc import Callable
from typing import Any, Final

import jinja2

from stoker.core.units import format_bytes
from stoker.fs.care.messages import CareStatus, DiskReport
from stoker.fs.demo.watching import Seen
from stoker.fs.master.messages import MasterStatus

_TIMEOUT_SECONDS: Final = 5.0
_NAMES: Final = ("127.0.0.1", "localhost")
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
_environment: Final = jinja2.Environment(
    loader=jinja2.PackageLoader("stoker.fs.demo"), autoescape=True, undefined=jinja2.StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip


def render(volume: str, seen: Seen) -> str:
    """Return the page."""
    disks = seen.care.disks if seen.care is not None else ()
    up = sum(one.disk.health == "up" for one in disks)
    leads = [name for name, status in seen.masters.items() if status is not None and status.role == "leads"]
    leader = f"{leads[0]} leads" if leads else "nobody leads"
    return _environment.get_template("page.html.j2").render(
        volume=volume,
        summary=f"{leader}; {up} of {len(disks)} disks are up",
        masters=[_master_row(name, status) for name, status in seen.masters.items()],
        disks=[_disk_row(one) for one in disks],
        facts=_facts(seen.care) if seen.care is not None else [],
        events=seen.events,
    )


def _master_row(name: str, status: MasterStatus | None) -> dict[str, Any]:
    if status is None:
        return {"address": name, "role": "does not answer", "good": False} | dict.fromkeys(
            ("epoch", "entry", "behind", "sessions"), ""
        )  # fmt: skip
    return {
        "address": name, "role": status.role, "good": not status.failure, "epoch": status.epoch,
        "entry": status.entry, "behind": status.behind_entries, "sessions": status.sessions,
    }  # fmt: skip


def _disk_row(one: DiskReport) -> dict[str, Any]:
    disk = one.disk
    marks = [name for name in ("draining", "full", "read_only") if getattr(disk, name)]
    return {
        "number": disk.id, "host": disk.host, "address": disk.address, "health": " ".join([disk.health, *marks]),
        "good": disk.health == "up", "used": _bytes(one.used_bytes), "free": _bytes(one.free_bytes),
        "shards": _count(one.shards), "bad": _count(one.bad_shards),
    }  # fmt: skip


def _bytes(count: int) -> str:
    return format_bytes(count) if count >= 0 else ""


def _count(count: int) -> str:
    return str(count) if count >= 0 else ""


def _facts(care: CareStatus) -> list[tuple[str, str]]:
    repair = care.repair
    exposed = [f"{count} with {spare} to spare" for spare, count in sorted(repair.exposure.items()) if spare >= 0]
    lost = sum(count for spare, count in repair.exposure.items() if spare < 0)
    told = [
        ("map", f"epoch {care.epoch}"),
        ("exposure", "; ".join([*exposed, *([f"{lost} cannot be read"] if lost else [])]) or "not examined yet"),
        ("waiting for repair", f"{repair.waiting} slices, {format_bytes(repair.waiting_bytes)}"),
        ("repaired", f"{repair.repaired} slices, {format_bytes(repair.repaired_bytes)}; {repair.failed} failed"),
    ]
    return told + [("trouble", text) for text in (*care.degraded, *care.trouble)]


class PageServer:
    """Answers browsers until it is closed; `url` tells where."""

    def __init__(self, volume: str, seen: Callable[[], Seen]) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(lambda: render(volume, seen())))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="stoker-demo-page")
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(page: Callable[[], str]) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = _TIMEOUT_SECONDS

        def do_GET(self) -> None:
            # A foreign site whose name leads to loopback must not read it through a browser.
            if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES:
                self._answer(403, "text/plain", b"ask for it by 127.0.0.1\n")
            elif self.path == "/":
                self._answer(200, "text/html; charset=utf-8", page().encode())
            else:
                self._answer(404, "text/plain", b"there is one page, /\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the page refreshes itself every two seconds."""

    return Handler
