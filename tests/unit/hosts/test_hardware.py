"""Ports and drives as the kernel tells of them, here and by a shell over there, and as a description needs them."""

import subprocess
from pathlib import Path

import pytest

from stoker.bench.report.submission.hardware import host_hardware
from stoker.bench.run.hosts import preflight
from stoker.bench.run.hosts.facts import HostFacts, Request, host_facts
from stoker.bench.run.hosts.hardware import drives_text, parse_drives, parse_ports, ports_text
from stoker.bench.run.hosts.inventory import inventory
from stoker.bench.run.hosts.shell import END, parse_answer, program
from stoker.bench.run.hosts.sources import local_name, read_all, snapshot


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A host with a fast port, one that is down, an InfiniBand port and a bridge."""
    write(tmp_path / "eth0", type="1\n", operstate="up\n", speed="400000\n")
    write(tmp_path / "eth1", type="1\n", operstate="down\n", speed="-1\n")
    write(tmp_path / "ib0", type="32\n", operstate="up\n", speed="200000\n")
    write(tmp_path / "br0", type="1\n", operstate="unknown\n")
    return tmp_path


def test_ports_tell_type_state_and_speed(net: Path) -> None:
    assert parse_ports(ports_text(net)) == [
        {"name": "br0", "type": "ethernet", "state": "up", "speed_gbps": None},
        {"name": "eth0", "type": "ethernet", "state": "up", "speed_gbps": 400.0},
        {"name": "eth1", "type": "ethernet", "state": "down", "speed_gbps": None},
        {"name": "ib0", "type": "infiniband", "state": "up", "speed_gbps": 200.0},
    ]


def drive(folder: Path, name: str, place: str, **texts: str) -> None:
    """A drive below a folder, its device where the kernel would have it."""
    device = folder / "devices" / place.lstrip("/")
    write(device, **{key: texts[key] for key in ("vendor", "model") if key in texts})
    device.mkdir(parents=True, exist_ok=True)
    entry = folder / "block" / name
    write(entry, size=texts["size"], queue__rotational=texts["rotational"])
    (entry / "device").symlink_to(device)


def test_drives_tell_model_bus_and_size(tmp_path: Path) -> None:
    drive(tmp_path, "nvme0n1", "pci/nvme/nvme0", model="ACME N1 7.68T   \n", size="15002931888\n", rotational="0\n")
    drive(tmp_path, "nvme0c0n1", "pci/nvme/nvme1", model="ACME N1 7.68T\n", size="15002931888\n", rotational="0\n")
    drive(tmp_path, "sda", "pci/ata1/host0", vendor="ATA     \n", model="DISK\t4T\n", size="8\n", rotational="1\n")
    drive(tmp_path, "sdb", "pci/host1/end_device-1:0", vendor="SEAGATE \n", model="S2\n", size="16\n", rotational="1\n")
    drive(tmp_path, "sr0", "pci/ata2/host2", vendor="QEMU\n", model="DVD\n", size="0\n", rotational="1\n")
    drive(tmp_path, "vda", "pci/virtio1", vendor="0x1af4\n", size="2\n", rotational="1\n")
    write(tmp_path / "block/sda1", partition="1\n", size="8\n")
    (tmp_path / "block/loop0").mkdir()
    assert parse_drives(drives_text(tmp_path / "block")) == [
        {
            "name": "nvme0n1",
            "vendor": "",
            "model": "ACME N1 7.68T",
            "interface": "nvme",
            "rotational": False,
            "bytes": 15002931888 * 512,
        },
        {"name": "sda", "vendor": "", "model": "DISK 4T", "interface": "sata", "rotational": True, "bytes": 4096},
        {"name": "sdb", "vendor": "SEAGATE", "model": "S2", "interface": "sas", "rotational": True, "bytes": 8192},
        {"name": "vda", "vendor": "", "model": "", "interface": "other", "rotational": True, "bytes": 1024},
    ]


@pytest.mark.parametrize(
    "text", ["", "a b", "a\tb\tc\td\te\tf", "x 1 up 99999999999999999999", "\0" * 50, "a\tn\t0\tp\t\t"]
)
def test_what_is_not_understood_is_left_out(text: str) -> None:
    assert parse_drives(text) == []
    assert all(port["speed_gbps"] is None for port in parse_ports(text))


def test_shell_tells_the_same_as_this_process() -> None:
    done = subprocess.run(["sh", "-c", program(5)], input="snapshot\n", capture_output=True, text=True, check=True)
    theirs, (ours, _) = parse_answer(done.stdout.split(END)[1]), read_all()
    for name in ("ports", "drives"):
        assert theirs[name].strip() == ours[name].strip()
    assert done.stderr == ""
    found = snapshot(theirs, {})
    assert found["ports"] == snapshot(ours, {})["ports"] and found["drives"] == snapshot(ours, {})["drives"]


def test_host_is_asked_for_its_hardware_only_when_it_should_be() -> None:
    assert host_facts(Request()).hardware is None
    told = host_facts(Request(hardware=True))
    assert isinstance(told, HostFacts) and told.hardware is not None
    assert told.hardware.host == local_name() and told.hardware.start["ports"] == snapshot(read_all()[0], {})["ports"]


def test_inventory_of_this_host_gives_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "here")
    (series,) = inventory()
    found = host_hardware(series)
    assert found.host == local_name() and found.cpu_cores and found.memory_gib
    assert ("AWS_REGION", "here") in found.environment
    assert inventory([local_name(), "localhost"])[1].errors == []


def test_host_that_cannot_be_asked_has_errors_and_no_facts() -> None:
    (series,) = inventory(["no-such-host.invalid"])
    assert series.start == {} and series.errors


def test_ssh_that_goes_without_reading_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not read breaks the pipe twice: when it is written, and when its end is closed."""
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nexec <&-\necho no route to that host >&2\nexit 255\n")
    ssh.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    converse = preflight._conversation

    def late(process: "subprocess.Popen[bytes]", request: Request) -> preflight.Told:
        process.wait()
        return converse(process, request)

    monkeypatch.setattr(preflight, "_conversation", late)
    facts, clock = preflight.ask("elsewhere", Request())
    assert "no route to that host" in facts.error and clock is None
