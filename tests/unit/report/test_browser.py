"""The page in a real browser: no error on the console, no request, no hostile text that runs."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import runs
from hostile import CANARY, hostile_result

from stoker.bench.report.html import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor chromium-browser is installed")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--enable-logging=stderr",
)


class Beacon(ThreadingHTTPServer):
    """Remembers the paths that were asked for."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Beacon)
        self.server.asked.append(self.path)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *words: object) -> None:
        """Stay quiet."""


@pytest.fixture
def beacon() -> Iterator[Beacon]:
    with Beacon() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def load(page: Path, scratch: Path) -> tuple[str, list[str]]:
    """Return the document after it was loaded and its scripts ran, and what was written to the console."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={scratch / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, re.findall(r":CONSOLE[:(].*", done.stderr)


def title_of(document: str) -> str:
    found = re.search(r"<title>(.*?)</title>", document, re.DOTALL)
    assert found is not None
    return found[1]


def test_page_loads_without_a_word_on_the_console(run_folder: Path, tmp_path: Path) -> None:
    document, console = load(write_report(run_folder), tmp_path)
    assert title_of(document) == "YES: unet3d · stoker"
    assert document.count('data-chart="') == 3
    assert console == []


def test_hostile_texts_neither_run_nor_reach_the_network(tmp_path: Path, beacon: Beacon) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    page = write_report(runs.save_run(folder, hostile_result(beacon.url)))
    document, console = load(page, tmp_path)
    assert CANARY in document
    assert title_of(document).startswith("INVALID: ")
    assert console == []
    assert beacon.asked == []


def test_a_text_that_ran_would_be_noticed(tmp_path: Path, beacon: Beacon) -> None:
    page = tmp_path / "broken.html"
    page.write_text(
        f"<title>x</title><script>document.title='{CANARY}'; console.error('heard')</script><img src={beacon.url}/seen>"
    )
    document, console = load(page, tmp_path)
    assert title_of(document) == CANARY
    assert any("heard" in line for line in console)
    assert "/seen" in beacon.asked


def test_policy_stops_a_script_that_got_in(run_folder: Path, tmp_path: Path, beacon: Beacon) -> None:
    page = write_report(run_folder)
    smuggled = f"<script>document.title='{CANARY}'</script><img src={beacon.url}/seen></main>"
    page.write_text(page.read_text().replace("</main>", smuggled))
    document, console = load(page, tmp_path)
    assert title_of(document) != CANARY
    assert console and beacon.asked == []
