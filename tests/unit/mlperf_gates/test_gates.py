"""The gates on real file systems: full ones, small ones, bound and separate ones, and what a killed gate leaves."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stoker.bench.rules.mlperf import RULES
from stoker.bench.run.gates import GATES_FILE, GateRequest, run_gates
from stoker.bench.run.gates.deciding import shared_gate, space_gate
from stoker.bench.run.gates.ranks import Look, by_host, packed
from stoker.bench.run.gates.sweeping import sweep
from stoker.bench.run.hosts.facts import Request, TargetFacts
from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.run.hosts.separation import SEPARATION_FILE
from stoker.core.errors import PreflightError, UsageError
from stoker.core.units import MiB

UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
GATE = """
import json, os, subprocess, sys
import msgspec
from pathlib import Path
from stoker.bench.run.gates import GateRequest, run_gates
before = {name: sorted(os.listdir(name)) for name in ("data", "results") if os.path.isdir(name)}
report = run_gates(msgspec.json.decode(sys.argv[1], type=GateRequest))
after = {name: sorted(os.listdir(name)) for name in before}
print(json.dumps({"gates": msgspec.to_builtins(report.gates), "clean": before == after}))
"""


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(
        [*UNSHARE, "sh", "-c", "mkdir -p $0 && mount -t tmpfs none $0", "/tmp"], capture_output=True, check=False
    )
    return tried.returncode == 0


mounting = pytest.mark.skipif(not can_mount(), reason="mount namespaces are not allowed here")


def gated(tmp_path: Path, mounts: str, **asked: Any) -> dict[str, Any]:
    """Run the gates in a mount namespace of their own, after the shell commands `mounts` made data and results."""
    for name in ("data", "results"):
        (tmp_path / name).mkdir(exist_ok=True)
    request = json.dumps({"target": str(tmp_path / "data"), "results": str(tmp_path / "results"), **asked})
    words = [*UNSHARE, "sh", "-ec", f'{mounts}\nexec "$0" -c "$1" "$2"', sys.executable, GATE, request]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    return {**{gate["id"]: gate for gate in told["gates"]}, "clean": told["clean"]}


@mounting
def test_separate_file_systems_with_room_pass(tmp_path: Path) -> None:
    told = gated(tmp_path, "mount -t tmpfs -o size=8m none data", needed_bytes=4 * MiB, needed_files=3)
    assert [told[rule]["state"] for rule in ("CAP-01", "CAP-02", "CAP-03")] == ["passed"] * 3
    assert told["CAP-01"]["facts"]["available_bytes"] == 8 * MiB
    assert told["CAP-01"]["facts"]["deficit_bytes"] == 0
    assert told["CAP-03"]["facts"]["same_filesystem"] is False
    assert told["clean"]


@mounting
def test_a_full_file_system_tells_the_deficit(tmp_path: Path) -> None:
    mounts = "mount -t tmpfs -o size=4m none data\nhead -c 3145728 /dev/zero > data/old"
    told = gated(tmp_path, mounts, needed_bytes=2 * MiB)
    space = told["CAP-01"]
    assert (space["state"], space["code"]) == ("failed", "FS_DISK_FULL")
    assert (space["facts"]["available_bytes"], space["facts"]["deficit_bytes"]) == (MiB, MiB)
    assert "1.00 MiB too little" in space["observed"]
    assert space["remedy"] == RULES["CAP-01"].remedy
    assert told["clean"]


@mounting
def test_a_file_system_without_a_byte_left_leaves_no_sentinel(tmp_path: Path) -> None:
    mounts = "mount -t tmpfs -o size=1m none data\nhead -c 1048576 /dev/zero > data/old"
    told = gated(tmp_path, mounts, needed_bytes=1)
    assert told["CAP-01"]["facts"]["available_bytes"] == 0
    assert (told["CAP-02"]["state"], told["CAP-02"]["code"]) == ("failed", "FS_INVALID_STRUCTURE")
    assert "No space left" in told["CAP-02"]["observed"]
    assert told["clean"]


@mounting
def test_too_few_inodes_shut_the_gate(tmp_path: Path) -> None:
    told = gated(tmp_path, "mount -t tmpfs -o size=8m,nr_inodes=20 none data", needed_bytes=MiB, needed_files=100)
    assert told["CAP-01"]["code"] == "FS_DISK_FULL"
    assert "inodes free, 100 needed" in told["CAP-01"]["observed"]


@mounting
def test_a_bind_mount_is_no_other_file_system(tmp_path: Path) -> None:
    told = gated(tmp_path, "mkdir -p place/inner\nmount --bind place data\nmount --bind place/inner results")
    assert told["CAP-03"]["state"] == "failed"
    assert told["CAP-03"]["facts"]["same_filesystem"] is True
    assert "one file system" in told["CAP-03"]["observed"]


@mounting
@pytest.mark.parametrize("file", ["", "mkdir -p data/train\ntouch data/train/img_0.npz"])
def test_the_link_is_tried_with_a_file_of_the_data_or_one_of_its_own(tmp_path: Path, file: str) -> None:
    told = gated(tmp_path, f"mount -t tmpfs none data\nmount -t tmpfs none results\n{file}")
    assert told["CAP-03"]["state"] == "passed"
    assert told["clean"]


@mounting
def test_a_target_that_takes_no_file_is_told(tmp_path: Path) -> None:
    told = gated(tmp_path, "mount -t tmpfs none data\nmount -o remount,ro data")
    assert told["CAP-02"]["state"] == "failed"
    assert "Read-only file system" in told["CAP-02"]["observed"]


def test_one_file_system_is_recorded_and_stops(tmp_path: Path) -> None:
    for name in ("data", "results", "leaf"):
        (tmp_path / name).mkdir()
    asked = GateRequest(target=str(tmp_path / "data"), results=str(tmp_path / "results"))
    report = run_gates(asked)
    assert [gate.id for gate in report.stopping] == ["CAP-03"]
    with pytest.raises(PreflightError, match=r"1 of 3 gates.*CAP-03 fileSystemSeparation failed"):
        report.require()
    assert [path.name for path in report.record(tmp_path / "leaf")] == [GATES_FILE, SEPARATION_FILE]
    found = json.loads((tmp_path / "leaf" / SEPARATION_FILE).read_text())
    assert found["same_filesystem"] is True
    assert found["data_or_chkpt_path"] == str(tmp_path / "data")


def test_the_separation_gate_can_be_skipped_and_is_recorded_all_the_same(tmp_path: Path) -> None:
    asked = GateRequest(target=str(tmp_path / "data"), results=str(tmp_path), skip_separation=True)
    report = run_gates(asked)
    report.require()
    apart = {gate.id: gate for gate in report.gates}["CAP-03"]
    assert (apart.state, apart.suppressed) == ("failed", True)
    assert "(recorded only)" in apart.line
    report.record(tmp_path)
    kept = {gate["id"]: gate for gate in json.loads((tmp_path / GATES_FILE).read_text())["gates"]}
    assert kept["CAP-03"]["suppressed"] is True


def test_object_stores_and_engines_are_exempt(tmp_path: Path) -> None:
    for asked, told in (
        (GateRequest(target="s3://bucket/data?secret_key=abc", results=str(tmp_path)), "s3:// is no file system"),
        (GateRequest(target="", results=str(tmp_path), exempt="the engine is remote"), "the engine is remote"),
    ):
        report = run_gates(asked)
        report.require()
        assert {gate.state for gate in report.gates} == {"exempt"}
        assert all(told in gate.observed for gate in report.gates)
        (path,) = report.record(tmp_path)
        assert path.name == GATES_FILE
        assert "abc" not in path.read_text()


def test_no_target_takes_a_reason(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the gates need a target"):
        run_gates(GateRequest(target="", results=str(tmp_path)))


def test_a_target_that_is_not_made_yet_is_looked_at_from_above(tmp_path: Path) -> None:
    report = run_gates(GateRequest(target=str(tmp_path / "new" / "deep"), results=str(tmp_path), needed_bytes=1 << 60))
    gates = {gate.id: gate for gate in report.gates}
    assert gates["CAP-01"].code == "FS_DISK_FULL"
    assert gates["CAP-02"].state == "passed"
    assert list(tmp_path.iterdir()) == []


def test_clients_with_targets_of_their_own_share_the_results(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "results").mkdir()
    asked = GateRequest(target=str(tmp_path / "cache"), results=str(tmp_path / "results"), shared_target=False)
    shared = {gate.id: gate for gate in run_gates(asked).gates}["CAP-02"]
    assert shared.facts["path"] == str(tmp_path / "results")


KILLED = """
import os, signal, sys
from stoker.bench.run.hosts.facts import Request, target_facts
target_facts(Request(target=sys.argv[1], sentinel=".stoker-shared-0123456789ab", token="0123456789ab", put=True))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_gate_leaves_is_swept_later(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    ended = subprocess.run([sys.executable, "-c", KILLED, str(data)], check=False, timeout=60)
    assert ended.returncode == -9
    (left,) = data.iterdir()
    asked = GateRequest(target=str(data), results=str(tmp_path))
    run_gates(asked)
    assert left.exists()  # it may belong to a gate that is being made
    old = time.time() - 3600
    os.utime(left, (old, old))
    for name in (".stoker-shared-notours", "img_0.npz", ".stoker-link-0123456789abc"):
        (data / name).touch()
        os.utime(data / name, (old, old))
    (data / ".stoker-link-0123456789ab").mkdir()
    run_gates(asked)
    assert not left.exists()
    assert len(list(data.iterdir())) == 4
    assert sweep(tmp_path / "none") == []


def test_a_host_that_cannot_be_asked_shuts_the_gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ssh there
    asked = GateRequest(target=str(tmp_path), results=str(tmp_path), hosts=parse_hosts("far.invalid,localhost"))
    report = run_gates(asked)
    shared = {gate.id: gate for gate in report.gates}["CAP-02"]
    assert shared.state == "failed"
    assert "far.invalid: no ssh on this host" in shared.observed
    assert list(tmp_path.iterdir()) == []


def seen(found: str = "token", inode: int = 7, device: int = 51, error: str = "") -> TargetFacts:
    return TargetFacts(found=found, inode=inode, device=device, free_bytes=MiB, error=error)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (seen("token"), ""),
        (seen("token", device=52), ""),  # numbered by the host itself, as of network file systems
        (seen("else"), "not seen on b"),
        (seen("token", inode=8), "2 inode numbers"),
        (seen("token", device=os.makedev(8, 1)), ""),
        (seen(error="no such folder: /x"), "b: no such folder"),
    ],
)
def test_what_hosts_see_is_held_together(other: TargetFacts, told: str) -> None:
    gate = shared_gate({"a": seen(), "b": other}, "token", "/x")
    assert (gate.state == "failed") == bool(told)
    assert told in gate.observed


def test_two_disks_with_equal_inodes_are_two() -> None:
    disks = {name: seen(device=os.makedev(8, number)) for number, name in enumerate("ab")}
    assert "2 device numbers" in shared_gate(disks, "token", "/x").observed


def test_a_rank_that_sees_something_else_speaks_for_its_host() -> None:
    looks = [Look(rank, f"h{rank // 2}", seen("token" if rank != 3 else "else")) for rank in range(4)]
    found = by_host(looks)
    assert [found[name].found for name in ("h0", "h1")] == ["token", "else"]
    assert packed(Request(target="/a b'c")).isascii() and " " not in packed(Request(target="/a b'c"))


def test_the_host_that_sees_least_space_counts() -> None:
    asked = GateRequest(target="/x", results="/y", needed_bytes=2 * MiB)
    wide = TargetFacts(free_bytes=4 * MiB)
    assert space_gate({"a": wide}, asked).state == "passed"
    assert "(on b)" in space_gate({"a": wide, "b": seen()}, asked).observed
    blind = space_gate({"a": TargetFacts(error="stale handle")}, asked)
    assert (blind.state, blind.code) == ("failed", "E401")
