"""The kernel's texts as numbers. Pure: a line that is not understood is left out, never guessed."""

import re
from collections.abc import Iterator
from typing import Any, Final

from stoker.bench.run.hosts.disks import COUNTERS, DISK_FIELDS, BlockFacts, Counters
from stoker.bench.workloads.mounts import parse_mounts

NET_FIELDS: Final = (
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "rx_fifo",
    "rx_frame",
    "rx_compressed",
    "rx_multicast",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
    "tx_fifo",
    "tx_collisions",
    "tx_carrier",
    "tx_compressed",
)
CPU_FIELDS: Final = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
_PAIR: Final = re.compile(r"^(\S+?):?\s+(-?\d+)(?: kB)?\s*$", re.MULTILINE)


def parse_diskstats(text: str) -> dict[str, Counters]:
    """Return the 17 counters of each device; kernels that know fewer have zeros at the end."""
    found = {}
    for words in map(str.split, text.splitlines()):
        if len(words) > 3 + 10 and all(word.isdecimal() for word in words[3:]):
            counters = tuple(int(word) for word in words[3 : 3 + COUNTERS])
            found[words[2]] = counters + (0,) * (COUNTERS - len(counters))
    return found


def parse_netdev(text: str) -> dict[str, tuple[int, ...]]:
    """Return the 16 counters of each interface."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        words = rest.split()
        if colon and len(words) == len(NET_FIELDS) and all(word.isdecimal() for word in words):
            found[name.strip()] = tuple(map(int, words))
    return found


def parse_pairs(text: str) -> dict[str, int]:
    """Return names and whole numbers, as in /proc/vmstat and (in kB) /proc/meminfo."""
    return {name: int(value) for name, value in _PAIR.findall(text)}


def parse_loadavg(text: str) -> dict[str, int]:
    """Return the three load averages in hundredths."""
    words = text.split()[:3]
    names = ("1min_hundredths", "5min_hundredths", "15min_hundredths")
    return {name: round(float(word) * 100) for name, word in zip(names, words, strict=False) if _is_number(word)}


def _is_number(word: str) -> bool:
    return re.fullmatch(r"\d+(?:\.\d+)?", word) is not None


def parse_cpu(text: str) -> dict[str, int]:
    """Return the ticks of all processors together, from the first line of /proc/stat."""
    words = text.partition("\n")[0].split()
    if words[:1] != ["cpu"]:
        return {}
    return {name: int(word) for name, word in zip(CPU_FIELDS, words[1:], strict=False) if word.isdecimal()}


def parse_cpuinfo(text: str) -> dict[str, Any]:
    """Return model, sockets, cores and logical CPUs; without physical ids every logical CPU is a core of socket 0."""
    blocks = [_fields(block) for block in re.split(r"\n\s*\n", text.strip())]
    processors = [block for block in blocks if "processor" in block]
    cores = {(block.get("physical id", "0"), block.get("core id", block["processor"])) for block in processors}
    names = ("model name", "Model", "cpu model", "cpu")
    model = next((block[name] for block in blocks for name in names if block.get(name)), "")
    return {
        "model": model,
        "sockets": len({socket for socket, _ in cores}),
        "cores": len(cores),
        "logical_cpus": len(processors),
    }


def _fields(block: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def parse_os_release(text: str) -> dict[str, str]:
    """Return the names of os-release(5), their quotes taken off."""
    pairs = re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", text, re.MULTILINE)
    return {name: re.sub(r"\\(.)", r"\1", _unquoted(value.strip())) for name, value in pairs}


def _unquoted(text: str) -> str:
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if quoted else text


def parse_filesystems(text: str) -> list[str]:
    """Return the names of the file systems that the kernel knows, `nodev` ones with an asterisk."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return [f"{words[-1]}*" if words[0] == "nodev" else words[-1] for words in lines]


def parse_cgroups(text: str) -> list[dict[str, Any]]:
    """Return the controllers of /proc/cgroups."""
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [
        {"name": row[0], "hierarchy": int(row[1]), "groups": int(row[2]), "enabled": row[3] == "1"}
        for row in rows
        if len(row) == 4 and row[1].isdecimal() and row[2].isdecimal()
    ]


def parse_uptime(text: str) -> float | None:
    """Return the seconds since the host started, None for what is no /proc/uptime."""
    first = text.split()[:1]
    return float(first[0]) if first and _is_number(first[0]) else None


def mount_rows(text: str) -> list[dict[str, Any]]:
    """Return the mounts of a mountinfo text, secrets in their options hidden."""
    return [
        {"point": mount.point, "type": mount.kind, "source": mount.source, "options": list(mount.options)}
        for mount in parse_mounts(text)
    ]


def parse_blocks(text: str) -> dict[str, BlockFacts]:
    """Return the facts of lines `NAME PARTITION_OF STANDS_ON`, a dash for none, names joined by commas."""
    rows = [line.split() for line in text.splitlines()]
    return {
        row[0]: BlockFacts(_some(row[1]), tuple(filter(None, _some(row[2]).split(","))))
        for row in rows
        if len(row) == 3
    }


def _some(word: str) -> str:
    return "" if word == "-" else word


def parse_links(text: str) -> dict[str, bool]:
    """Return for lines `INTERFACE 0|1` whether the interface has a device of its own."""
    return {row[0]: row[1] == "1" for row in map(str.split, text.splitlines()) if len(row) == 2}


def numbers(texts: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Yield (column, value) of one sample from the texts of the sources, by their names in `sources`."""
    for name, value in parse_cpu(texts.get("stat", "")).items():
        yield f"cpu/{name}", value
    for name, value in parse_loadavg(texts.get("loadavg", "")).items():
        yield f"load/{name}", value
    for group, source in (("mem", "meminfo"), ("vm", "vmstat")):
        for name, value in parse_pairs(texts.get(source, "")).items():
            yield f"{group}/{name}", value
    for group, fields, devices in (
        ("disk", DISK_FIELDS, parse_diskstats(texts.get("diskstats", ""))),
        ("net", NET_FIELDS, parse_netdev(texts.get("net/dev", ""))),
    ):
        for device, counters in devices.items():
            yield from zip((f"{group}/{device}/{field}" for field in fields), counters, strict=True)
