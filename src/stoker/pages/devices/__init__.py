"""Pages on devices: copies in the memory of a GPU, kernels that compare them there, and the way of their changes.

| module | what it holds |
|---|---|
| copies | the copies that one process has: push, refresh, edit, commit |
| home, slabs, staging, lanes, managed | one device: memory, the way over the bus, streams |
| kernels, eager, triton_tiles, host_kernels | three sets of kernels that give the same bytes |
| tiles, changes, casting | how changes travel: between kernels, from the log, out of a cast |
| routing | host or device, by a crossover that is measured |
| waves, recall, checks | the graph's device edges, restarts, whether copies are sound |
| stats, cupy_arrays | numbers, CuPy |
"""

from stoker.pages.devices.casting import cast_pages
from stoker.pages.devices.checks import differing
from stoker.pages.devices.copies import DevicePages, Refreshed
from stoker.pages.devices.kernels import TileKernels, kernels_for
from stoker.pages.devices.lanes import Arrival
from stoker.pages.devices.recall import Recalled, recall
from stoker.pages.devices.routing import measure_crossover, pin_crossover
from stoker.pages.devices.stats import DeviceStats

__all__ = [
    "Arrival",
    "DevicePages",
    "DeviceStats",
    "Recalled",
    "Refreshed",
    "TileKernels",
    "cast_pages",
    "differing",
    "kernels_for",
    "measure_crossover",
    "pin_crossover",
    "recall",
]
