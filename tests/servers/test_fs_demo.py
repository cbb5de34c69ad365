"""`stoker fs demo` as it is run: what it shows, and that nothing of it is left, however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from demo_place import NEEDS_ETCD, nothing_left, users_of

STOKER = str(Path(sys.executable).parent / "stoker")


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [STOKER, "fs", "demo", "--dir", str(folder), *words]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts it in the background ignores it
    try:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, before)


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return what it said once it has ended; one that does not end in time is not left running."""
    try:
        return process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate(timeout=60)
        raise


def gone(folder: Path) -> None:
    nothing_left(folder)
    assert not folder.exists()


def test_without_etcd_it_says_how_to_install_it(tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    done = subprocess.run(
        [STOKER, "fs", "demo", "--dir", str(tmp_path / "d")],
        capture_output=True, text=True, env={**os.environ, "PATH": str(empty)},
    )  # fmt: skip
    assert done.returncode not in (0, 3)
    assert "apt install etcd-server" in done.stderr
    gone(tmp_path / "d")


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    done = subprocess.run([STOKER, "fs", "demo", "--dir", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert (tmp_path / "thesis").read_text() == "mine"


@NEEDS_ETCD
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_shows_what_it_promises_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    process = start(folder, "--json")
    out, errors = process.communicate(timeout=280)
    told = json.loads(out)
    assert process.returncode == 0, (told, errors)
    assert told["holds"]
    assert [step["name"] for step in told["steps"] if step["holds"]] == [
        "write", "read by another client", "master killed", "1 chunk server killed", "4 chunk servers killed",
        "all started again",
    ]  # fmt: skip
    gone(folder)


@NEEDS_ETCD
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kept_it_can_be_used_until_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    process = start(folder, "--keep")
    assert process.stdout is not None
    lines = {}
    for line in process.stdout:
        name, _, rest = line.strip().partition(" ")
        lines[name] = rest.strip()
        if name == "end":
            break
    page = lines["page"]
    with urllib.request.urlopen(page) as answer:
        text = answer.read().decode()
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert 'http-equiv="refresh"' in text and "12 of 12 disks are up" in text and "leads" in text
    assert "master killed" in text and "src=" not in text and "http://" not in text
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(urllib.request.Request(page, headers={"Host": "evil.example:80"}))
    listed = subprocess.run([STOKER, *lines["list"].split()[1:]], capture_output=True, text=True)
    assert "coded" in listed.stdout, listed.stderr
    process.send_signal(signal.SIGINT)
    ended(process)
    assert process.returncode == 0
    gone(folder)


@NEEDS_ETCD
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [0.7, 3.0, 7.0, 16.0])
def test_ctrl_c_at_any_moment_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    folder = tmp_path / "d"
    process = start(folder, "--keep")
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    ended(process)
    assert process.returncode in (0, 130, -signal.SIGINT)
    gone(folder)


@NEEDS_ETCD
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [0.7, 1.5, 3.0, 7.0, 0.0])
def test_killed_at_any_moment_it_leaves_no_process_and_no_mount(tmp_path: Path, seconds: float) -> None:
    folder = tmp_path / "d"
    process = start(folder, "--keep")
    time.sleep(seconds)
    if not seconds:
        assert process.stdout is not None
        assert any(line.startswith("end ") for line in process.stdout)
        assert len(users_of(folder)) > 15
        assert str(folder) in Path("/proc/mounts").read_text()
    process.kill()
    process.communicate()
    nothing_left(folder, within_seconds=60)


@NEEDS_ETCD
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_when_a_process_does_not_start_nothing_is_left(tmp_path: Path) -> None:
    folder, tools = tmp_path / "d", tmp_path / "bin"
    tools.mkdir()
    (tools / "etcd").write_text("#!/bin/sh\necho no such device >&2\nexit 7\n")
    (tools / "etcd").chmod(0o755)
    done = subprocess.run(
        [STOKER, "fs", "demo", "--dir", str(folder), "--keep"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 5
    assert "etcd" in done.stderr
    gone(folder)
