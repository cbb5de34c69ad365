"""From what hosts tell to findings; install commands by distribution; the probe of separate file systems."""

import json
from pathlib import Path

import msgspec
import pytest

from stoker.bench.run.hosts.facts import HostFacts, Request, TargetFacts, host_facts, target_facts
from stoker.bench.run.hosts.judging import Asked, Check, failed, judge_hosts
from stoker.bench.run.hosts.packages import install_command, manager_of
from stoker.bench.run.hosts.preflight import is_here
from stoker.bench.run.hosts.separation import SEPARATION_FILE, probe_separation, record_separation
from stoker.bench.run.hosts.sources import local_name
from stoker.core.host_series import ClockOffset
from stoker.core.units import GiB

TARGET = TargetFacts(mount_type="nfs4", mount_options=("rw", "vers=4.2"), free_bytes=9 * GiB, found="token")
GOOD = HostFacts(
    host="a",
    stoker_version="1.0",
    python="3.11.7",
    system="Debian",
    open_files=65536,
    shared_memory_free_bytes=GiB,
    cpus=8,
    memory_bytes=GiB,
    target=TARGET,
)
ASKED = Asked("/mnt/data", "token")


def judged(facts: dict[str, HostFacts], asked: Asked = ASKED, **offsets: ClockOffset) -> dict[str, Check]:
    return {check.name: check for check in judge_hosts(facts, asked, offsets)}


def changed(**changes: object) -> HostFacts:
    return msgspec.structs.replace(GOOD, **changes)


def target(**changes: object) -> HostFacts:
    return changed(target=msgspec.structs.replace(TARGET, **changes))


def test_hosts_that_are_alike_pass() -> None:
    checks = judged({"a": GOOD, "b": GOOD}, a=ClockOffset(0.0, 0.001, 8))
    assert {check.status for check in checks.values()} == {"ok"}
    assert checks["target shared"].observed == "a file that one host wrote is seen on 2 hosts"


@pytest.mark.parametrize(
    ("other", "name", "status", "words"),
    [
        (HostFacts(error="no answer", remedy="ssh-copy-id b"), "host b", "fail", "no answer"),
        (changed(stoker_version="0.9"), "stoker version", "fail", "but 0.9 on b"),
        (changed(python="3.12.1"), "python version", "warn", "3.12.1 on b"),
        (changed(not_locked=("numpy 2.1 (locked 2.2)",)), "locked versions", "warn", "b: numpy 2.1 (locked 2.2)"),
        (changed(open_files=1024), "open files on b", "warn", "1024"),
        (changed(shared_memory_free_bytes=None), "shared memory on b", "warn", "no /dev/shm"),
        (target(found=None), "target shared", "fail", "not seen on b"),
        (target(found="another"), "target shared", "fail", "not seen on b"),
        (target(error="Read-only file system: /mnt"), "target on b", "fail", "Read-only"),
        (target(mount_options=("ro",)), "target mount", "warn", "nfs4 ro on b"),
        (target(free_bytes=1000), "target space", "warn", "1000 B free"),
        (target(credentials_missing=("AWS_ACCESS_KEY_ID",)), "credentials on b", "note", "AWS_ACCESS_KEY_ID"),
    ],
)
def test_what_one_host_has_otherwise_is_named_with_it(other: HostFacts, name: str, status: str, words: str) -> None:
    check = judged({"a": GOOD, "c": GOOD, "b": other})[name]
    assert check.status == status
    assert words in check.observed
    assert check.remedy


def test_an_unreached_host_does_not_hide_what_the_others_tell() -> None:
    checks = judge_hosts({"a": GOOD, "b": HostFacts(error="gone"), "c": changed(stoker_version="0.9")}, ASKED)
    assert [check.name for check in failed(checks)] == ["host b", "stoker version"]


def test_missing_space_is_told_with_the_deficit() -> None:
    check = judged({"a": GOOD}, Asked("/mnt/data", "token", 10 * GiB))["target space"]
    assert check.status == "fail"
    assert "9.00 GiB free, 10.00 GiB needed, 1.00 GiB too little (on a)" in check.observed


def test_only_an_offset_beyond_its_error_is_told_of() -> None:
    assert judged({"a": GOOD}, a=ClockOffset(1.5, 0.9, 8))["clocks"].status == "ok"
    check = judged({"a": GOOD}, a=ClockOffset(-2.5, 0.9, 8))["clocks"]
    assert check.status == "warn" and "NTP" in check.remedy


@pytest.mark.parametrize(
    ("release", "manager", "command"),
    [
        ({"ID": "debian"}, "apt", "apt-get install openssh-client"),
        ({"ID": "ubuntu", "ID_LIKE": "debian"}, "apt", "apt-get install openssh-client"),
        ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian"}, "apt", "apt-get install openssh-client"),
        ({"ID": "fedora", "VERSION_ID": "40"}, "dnf", "dnf install openssh-clients"),
        ({"ID": "rhel", "VERSION_ID": "9.4"}, "dnf", "dnf install openssh-clients"),
        ({"ID": "centos", "VERSION_ID": "7", "ID_LIKE": "rhel fedora"}, "yum", "yum install openssh-clients"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper", "zypper install openssh-clients"),
        ({"ID": "arch"}, "pacman", "pacman -S openssh"),
        ({"ID": "alpine"}, "apk", "apk add openssh-client"),
        ({"ID": "arch"}, "pacman", "pacman -S openssh"),
        ({"ID": "macos"}, "brew", "brew install openssh"),
    ],
)
def test_install_commands_fit_the_distribution(release: dict[str, str], manager: str, command: str) -> None:
    assert manager_of(release) == manager
    assert install_command("ssh", release) == command
    assert "sudo" not in install_command("mpi", release)


def test_an_unknown_distribution_is_told_what_to_look_for() -> None:
    assert manager_of({"ID": "nixos"}) is None
    assert "openmpi-bin" in install_command("mpi", {"ID": "nixos"})


def test_this_host_tells_of_itself_and_leaves_no_file(tmp_path: Path) -> None:
    put = Request(str(tmp_path), sentinel=".stoker-shared-x", token="word", put=True)
    facts = host_facts(put)
    assert facts.host == local_name() and facts.error == "" and facts.cpus > 0
    assert facts.target is not None and facts.target.found == "word" and facts.target.error == ""
    look = Request(str(tmp_path), sentinel=".stoker-shared-x", token="word")
    seen = target_facts(look)
    assert (seen.device, seen.inode, seen.found) == (facts.target.device, facts.target.inode, "word")
    target_facts(msgspec.structs.replace(look, remove=True))
    assert list(tmp_path.iterdir()) == []
    assert target_facts(look).found is None


def test_a_target_that_is_not_there_or_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert "no such folder" in target_facts(Request(str(tmp_path / "none"))).error
    sealed = Request("/proc", sentinel="stoker-shared", token="x", put=True)
    assert "/proc/stoker-shared" in target_facts(sealed).error


def test_names_of_this_host() -> None:
    assert is_here("localhost") and is_here(local_name())
    assert not is_here("some-other-host.example.org")


def test_one_file_system_is_found_out_and_two_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "results").mkdir()
    (tmp_path / "data" / "file").write_text("x")
    record = probe_separation(tmp_path / "data", tmp_path / "results")
    assert record["same_filesystem"] is True
    assert (record["version"], record["method"], record["probed_by_host"]) == (1, "link_exdev", local_name())
    assert probe_separation(Path("/proc/self"), tmp_path / "results")["same_filesystem"] is False
    assert list((tmp_path / "results").iterdir()) == []
    missing = probe_separation(tmp_path / "none", tmp_path / "results")
    assert missing["same_filesystem"] is None and "No such file" in missing["error"]


def test_two_mounts_refuse_the_link(tmp_path: Path) -> None:
    shared = Path("/dev/shm")
    if not shared.is_dir() or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    folder = shared / f"stoker-test-{tmp_path.name}"
    folder.mkdir()
    try:
        (folder / "file").write_text("x")
        assert probe_separation(folder, tmp_path)["same_filesystem"] is False
        assert list(tmp_path.iterdir()) == []
    finally:
        (folder / "file").unlink()
        folder.rmdir()


def test_the_record_is_kept_for_local_targets_only(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    record_separation("s3://bucket/data", tmp_path / "run")
    assert not (tmp_path / "run" / SEPARATION_FILE).exists()
    record_separation(str(tmp_path), tmp_path / "run")
    assert json.loads((tmp_path / "run" / SEPARATION_FILE).read_text())["same_filesystem"] is True
