"""Host or device? Few bytes are sooner compared on the host, many on the device where they lie.

Where one becomes better than the other is measured on the machine, and kept in the user's cache folder for each machine
and device: `$XDG_CACHE_HOME/stoker/device_crossover.json`, or the same under `~/.cache`. It can be pinned there.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from stoker.core.clock import monotonic_ns
from stoker.core.errors import UsageError
from stoker.kernels.deltas import two_level_diff
from stoker.pages.devices.home import DeviceHome

DEFAULT_BYTES: Final = 1 << 20
NEVER_BYTES: Final = 1 << 62
"""The crossover of a device that was not faster at any size tried."""
SIZES: Final = tuple(4096 << (2 * step) for step in range(7))
_TIMES: Final = 5
_PAGE_BYTES: Final = 64 << 10


def cache_path() -> Path:
    """Return the file that crossovers are kept in."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "stoker" / "device_crossover.json"


def device_key(home: DeviceHome) -> str:
    """Return the name of a device on this machine, equal for equal ones."""
    model = home.torch.cuda.get_device_name(home.device) if home.device.type == "cuda" else platform.machine()
    return f"{platform.node()}/{home.device.type}/{model}/{home.kernels.name}"


def kept_crossover(home: DeviceHome) -> int:
    """Return the bytes of a batch from which on the device is used: pinned, measured, or 1 MiB."""
    entry = _entries().get(device_key(home), {})
    found = entry.get("crossover_bytes") if isinstance(entry, dict) else None
    return found if isinstance(found, int) and found >= 0 else DEFAULT_BYTES


def pin_crossover(home: DeviceHome, crossover_bytes: int | None) -> None:
    """Keep a crossover that measuring does not replace; with None forget what is kept. Raises UsageError."""
    if crossover_bytes is not None and crossover_bytes < 0:
        raise UsageError("crossover is a number of bytes, 0 or more", got=str(crossover_bytes))
    _keep(device_key(home), crossover_bytes, pinned=True)


def measure_crossover(home: DeviceHome) -> int:
    """Time both ways at sizes from 4 KiB to 16 MiB, keep where they cross, and return it; a pinned one stays.

    One byte in a hundred differs. The host's way brings whole pages over and compares them there; the device's way
    compares where they lie and brings over what changed.
    """
    entry = _entries().get(device_key(home), {})
    if isinstance(entry, dict) and entry.get("pinned"):
        return kept_crossover(home)
    crossover = NEVER_BYTES
    for size in reversed(SIZES):
        host_ns, device_ns = _timed(home, size)
        if device_ns >= host_ns:
            break
        crossover = size
    _keep(device_key(home), crossover, pinned=False)
    return crossover


def _timed(home: DeviceHome, size_bytes: int) -> tuple[int, int]:
    """Return the nanoseconds of the host's way and of the device's."""
    page_bytes = min(size_bytes, _PAGE_BYTES)
    chance = np.random.default_rng(0)
    places = [home.take(page_bytes, "device") for _ in range(size_bytes // page_bytes)]
    try:
        bases = [chance.integers(0, 256, page_bytes, np.uint8) for _ in places]
        home.put(places, bases)
        home.keep_shadows(places)
        for place, base in zip(places, bases, strict=True):
            fresh = np.where(chance.random(page_bytes) < 0.01, base ^ 1, base).astype(np.uint8)
            place.bytes.copy_(home.torch.from_numpy(fresh))
        return _median(lambda: _on_host(home, places, bases)), _median(lambda: home.changes(places))
    finally:
        for place in places:
            home.give(place)


def _on_host(home: DeviceHome, places: list[Any], bases: list[Any]) -> None:
    for base, fresh in zip(bases, home.get(places), strict=True):
        two_level_diff(base.data, fresh.data)


def _median(work: Callable[[], object]) -> int:
    work()
    spent = []
    for _ in range(_TIMES):
        start_ns = monotonic_ns()
        work()
        spent.append(monotonic_ns() - start_ns)
    return int(statistics.median(spent))


def _entries() -> dict[str, Any]:
    """Return what is kept; nothing where the file is not there or cannot be read: it can be measured again."""
    try:
        found = json.loads(cache_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _keep(key: str, crossover_bytes: int | None, *, pinned: bool) -> None:
    entries = _entries()
    entries.pop(key, None)
    if crossover_bytes is not None:
        entries[key] = {"crossover_bytes": crossover_bytes, "pinned": pinned}
    path = cache_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(entries, indent=1, sort_keys=True))
    draft.replace(path)
