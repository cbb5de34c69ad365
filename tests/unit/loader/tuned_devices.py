"""Devices that exist as formulas alone, for the tuner to be tried on."""

import itertools
import random
from dataclasses import dataclass, field

from stoker.core.units import GiB, MiB
from stoker.loader.tuning import Tuner, Window
from stoker.loader.tuning_bounds import Limits, Settings

WALL_NS = 1_000_000_000
REQUESTS_MIN = 16
WIDE = Limits(Settings(1, 1, 65536), Settings(16, 1024, 16 * MiB))


@dataclass
class Device:
    """Each request takes `latency_s`; together they get no more than `ceiling`; with more than `knee` requests under
    way it slows down, halving with each doubling; the client spends `cpu_s` a byte on `cpus`."""

    latency_s: float = 0.001
    ceiling: float = 2.0 * GiB
    knee: int = 1 << 30
    cpu_s: float = 0.0
    cpus: int = 4
    noise: float = 0.0
    demand: float = float("inf")
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def rate(self, settings: Settings) -> float:
        """Return bytes per second without noise."""
        under_way = settings.readers * settings.queue_depth
        slowed = min(1.0, self.knee / under_way)
        rate = min(self.ceiling, under_way * settings.request_bytes / self.latency_s) * slowed
        return min(rate, self.cpus / self.cpu_s if self.cpu_s else rate)

    def window(self, settings: Settings) -> Window:
        """Return what happens in a second with these settings, or in what sixteen requests take."""
        possible = self.rate(settings) * (1 + self.chance.uniform(-self.noise, self.noise))
        rate = min(possible, self.demand)
        seconds = max(1.0, REQUESTS_MIN * settings.request_bytes / rate)
        wall_ns = int(seconds * 1e9)
        busy_ratio = rate / possible
        return Window(
            wall_ns=wall_ns,
            read_bytes=int(rate * seconds),
            requests=round(rate * seconds / settings.request_bytes),
            waited_ns=wall_ns // 2 if busy_ratio == 1 else 0,
            read_busy_ns=int(wall_ns * settings.readers * busy_ratio),
            cpu_ns=int(wall_ns * min(rate * self.cpu_s, self.cpus)),
        )


def tuned(tuner: Tuner, device: Device, windows: int) -> int:
    """Run until settled, for so many windows at most; return how many it took."""
    for window in range(windows):
        tuner.observe(device.window(tuner.settings))
        if tuner.settled:
            return window + 1
    return windows


def best_rate(device: Device, tuner: Tuner, limits: Limits) -> float:
    """Return the highest rate that doubling and halving within the limits can reach from the tuner's start."""
    start = Settings(**tuner.told()["start"])
    ladders = [_ladder(limits, start, knob) for knob in Settings.__struct_fields__]
    return max(device.rate(Settings(*values)) for values in itertools.product(*ladders))


def _ladder(limits: Limits, start: Settings, knob: str) -> list[int]:
    values = [getattr(start, knob)]
    for up in (True, False):
        settings: Settings | None = start
        while (settings := limits.step(settings, knob, up=up)) is not None:
            values.append(getattr(settings, knob))
    return values
