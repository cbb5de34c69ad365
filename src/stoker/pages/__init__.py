"""The state bus: versioned pages in shared memory, changed by deltas that are logged, replayed and propagated.

from stoker.pages import Store

with Store.open("bus") as store:
    page = store.allocate(4096, name="weights")
    page.write(bytes(4096))
    store.checkpoint()
"""

from stoker.pages.batch import Batch
from stoker.pages.bus import Store
from stoker.pages.devices import DevicePages
from stoker.pages.errors import (
    ChecksumError,
    Conflict,
    CorruptLog,
    CycleError,
    DeriveError,
    DeviceError,
    FormatError,
    InvalidDelta,
    OutOfSpace,
    PageNotFound,
    PagesError,
    Poisoned,
    Quarantined,
    Timeout,
)
from stoker.pages.frames import Location, PageState, Residency
from stoker.pages.graph import EdgeKind, Event, EventKind, EventQueue
from stoker.pages.history import State, Target
from stoker.pages.page import Page
from stoker.pages.snapshot import Snapshot
from stoker.pages.weights import apply_weights, publish_weights

__all__ = [
    "Batch",
    "ChecksumError",
    "Conflict",
    "CorruptLog",
    "CycleError",
    "DeriveError",
    "DeviceError",
    "DevicePages",
    "EdgeKind",
    "Event",
    "EventKind",
    "EventQueue",
    "FormatError",
    "InvalidDelta",
    "Location",
    "OutOfSpace",
    "Page",
    "PageNotFound",
    "PageState",
    "PagesError",
    "Poisoned",
    "Quarantined",
    "Residency",
    "Snapshot",
    "State",
    "Store",
    "Target",
    "Timeout",
    "apply_weights",
    "publish_weights",
]
