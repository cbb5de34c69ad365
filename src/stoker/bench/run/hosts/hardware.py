"""What a host is made of, as far as its kernel tells without privileges: network ports and drives.

Both are read as lines of text, so that a shell on another host can print the same; parsing them is pure.

    ports    NAME TYPE STATE SPEED                            speed in Mbit/s, a dash where the kernel does not tell
    drives   NAME SECTORS ROTATIONAL PLACE VENDOR MODEL       tabs between them; whole drives alone, no partitions
"""

import re
from pathlib import Path
from typing import Any, Final

SECTOR_BYTES: Final = 512
_ETHERNET, _INFINIBAND = "1", "32"  # ARPHRD_… of the kernel
_PORT_TYPES: Final = {_ETHERNET: "ethernet", _INFINIBAND: "infiniband"}
_NVME_PATH: Final = re.compile(r"nvme\d+c\d+n\d+")
_BUSES: Final = (("sas", ("/end_device-", "/sas_")), ("sata", ("/ata",)))
_TEXT_BYTES_MAX: Final = 4096
_NO_VENDOR: Final = re.compile(r"0x[0-9a-f]+|ATA|NVMe|-?")


def ports_text(folder: Path = Path("/sys/class/net")) -> str:
    """Return a line for each network interface."""
    lines = []
    for port in sorted(folder.iterdir()) if folder.is_dir() else ():
        words = [_word(port / name) for name in ("type", "operstate", "speed")]
        lines.append(" ".join([port.name, *words]))
    return "\n".join(lines)


def drives_text(folder: Path = Path("/sys/class/block")) -> str:
    """Return a line for each drive that is a device of its own."""
    lines = []
    for drive in sorted(folder.iterdir()) if folder.is_dir() else ():
        device = drive / "device"
        if not device.exists() or (drive / "partition").exists():
            continue
        told = [_word(drive / "size"), _word(drive / "queue" / "rotational"), str(device.resolve())]
        names = [_line(device / "vendor"), _line(device / "model")]
        lines.append("\t".join([drive.name, *told, *names]))
    return "\n".join(lines)


def _line(path: Path) -> str:
    """Return the first line of a file of the kernel, an empty text where it tells nothing."""
    try:
        with path.open("rb") as file:
            text = file.read(_TEXT_BYTES_MAX).decode("utf-8", "replace")
    except OSError:  # the kernel refuses the speed of a port that is down
        return ""
    return text.partition("\n")[0].replace("\t", " ").strip()


def _word(path: Path) -> str:
    return "_".join(_line(path).split()) or "-"


def parse_ports(text: str) -> list[dict[str, Any]]:
    """Return the ports: name, type, state and speed in Gbit/s, None where it is not told."""
    rows = (line.split() for line in text.splitlines())
    return [
        {"name": name, "type": _PORT_TYPES.get(kind, "other"), "state": _state(state), "speed_gbps": _gbps(speed)}
        for name, kind, state, speed in (row for row in rows if len(row) == 4)
    ]


def _state(word: str) -> str:
    """Return up or down; drivers without carrier detection tell unknown, and carry."""
    return "up" if word in ("up", "unknown") else "down"


def _gbps(word: str) -> float | None:
    return int(word) / 1000 if word.isdecimal() and 0 < int(word) < 1 << 31 else None


def parse_drives(text: str) -> list[dict[str, Any]]:
    """Return the drives: name, vendor, model, interface, whether they rotate (None: not told), and bytes.

    Empty slots and the paths below a multipath drive are left out.
    """
    rows = (line.split("\t") for line in text.splitlines())
    return [
        {
            "name": name,
            "vendor": "" if _NO_VENDOR.fullmatch(vendor.strip()) else vendor.strip(),
            "model": model.strip(),
            "interface": _interface(name, place),
            "rotational": {"0": False, "1": True}.get(rotational),
            "bytes": int(sectors) * SECTOR_BYTES,
        }
        for name, sectors, rotational, place, vendor, model in (row for row in rows if len(row) == 6)
        if sectors.isdecimal() and int(sectors) > 0 and not _NVME_PATH.fullmatch(name)
    ]


def _interface(name: str, place: str) -> str:
    if name.startswith("nvme"):
        return "nvme"
    return next((bus for bus, marks in _BUSES if any(mark in place for mark in marks)), "other")
