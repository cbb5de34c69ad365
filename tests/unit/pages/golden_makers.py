"""Makes the golden files of format version 1 from fixed content: `python tests/unit/pages/golden_makers.py FOLDER`.

They are not made again when a test fails: files of users have this format, so another one needs another version.
"""

import sys
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.pages import Store
from stoker.pages.arena.layout import encode_static, plan_geometry
from stoker.pages.delta import Delta, XorDelta
from stoker.pages.graph.edges import EdgeKind
from stoker.pages.graph.events import Event, EventKind, encode_event
from stoker.pages.graph.keeping import DERIVATIONS, EDGES, SIGNATURES, GraphKeeper
from stoker.pages.graph.nodes import Derivation
from stoker.pages.history import CheckpointFacts, open_checkpoint, write_checkpoint
from stoker.pages.images import PageImage, encode_meta
from stoker.pages.weights import publish_weights
from stoker.pages.wire import encode_wire
from stoker.pages.wire_codecs import WireCodec

UUID = bytes(range(16))
SALT = 0x5EED
WHOLE_LSN, PART_LSN, PACKED_LSN = 12, 20, 30
NODES = [Derivation(2, [1], "passthrough"), Derivation(3, [1, 2], "sum", "ab" * 32, {"dtype": "<f4"}, lazy=True)]
EDGES_ADDED = [(1, 2, int(EdgeKind.DATA)), (1, 3, int(EdgeKind.CONTROL)), (2, 3, int(EdgeKind.CONTROL))]
EDGE_REMOVED = (1, 3, int(EdgeKind.CONTROL))
SEEN = {2: {1: 5}, 3: {1: 5, 2: 7}}
EVENT = Event(EventKind.PAGE_CHANGED, page=4294967297, epoch=3, lsn=9, time_ns=1_700_000_000_000_000_001, detail=b"why")
WEIGHTS = {"bias": np.arange(4, dtype=np.float32), "weight": np.arange(12, dtype=np.float16).reshape(3, 4)}


def images() -> list[PageImage]:
    """Return the pages of the checkpoints: one compressible, one of few bytes, one with metadata."""
    meta = encode_meta({"name": "weights", "dtype": "<f4", "shape": [2, 4]})
    return [
        PageImage(1, 3, 10, np.zeros(4096, np.uint8), elem_width=4),
        PageImage(2, 1, 11, np.arange(5, dtype=np.uint8), state=3, flags=1),
        PageImage(1 << 32 | 3, 7, 12, np.arange(32, dtype=np.uint8), location=2, residency=1, meta=meta),
    ]


def facts(lsn: int, parent_lsn: int = 0) -> CheckpointFacts:
    """Return who and when the checkpoints are of."""
    return CheckpointFacts(UUID, lsn, 1_700_000_000_000_000_000 + lsn, parent_lsn, 1, {"start": 4}, {77: "trainer"})


def write_checkpoints(folder: Path) -> None:
    """Write a whole checkpoint, one that leaves two pages in it, and one whose pages are compressed."""
    whole = write_checkpoint(folder, images(), facts(WHOLE_LSN), codec="raw")
    changed = images()
    changed[1] = msgspec.structs.replace(changed[1], epoch=2, lsn=20, data=np.full(5, 9, np.uint8))
    parent = open_checkpoint(whole.path).index
    write_checkpoint(folder, changed, facts(PART_LSN, WHOLE_LSN), codec="raw", parent=parent)
    write_checkpoint(folder, images(), facts(PACKED_LSN), codec="zstd")


def wire_images() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return two images of 16-bit elements of which a few differ, far apart too."""
    old = np.arange(2048, dtype=np.uint16) // 8
    new = old.copy()
    new[[0, 3, 300, 301, 1900, 2047]] += np.array([1, 65535, 2, 300, 65000, 9], np.uint16)
    return old.view(np.uint8), new.view(np.uint8)


def wire_blob(codec: WireCodec) -> bytes:
    """Return the difference of the two images in one codec."""
    old, new = wire_images()
    return encode_wire(old, old, 2) if codec == WireCodec.SAME else encode_wire(old, new, 2, mode=codec.name.lower())


def graph_pages() -> dict[str, bytes]:
    """Return the pages in which a store keeps its graph."""
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        keeper = GraphKeeper(store)
        keeper.append(EDGES_ADDED, add=True)
        keeper.append([EDGE_REMOVED], add=False)
        keeper.save_derivations({node.page: node for node in NODES})
        keeper.save_signatures(SEEN)
        names = {"edges": EDGES, "derivations": DERIVATIONS, "signatures": SIGNATURES}
        return {f"graph-{short}.bin": store.page(name).read().tobytes() for short, name in names.items()}


def manifest() -> bytes:
    """Return the page that tells how published weights lie."""
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        publish_weights(WEIGHTS, store)
        return store.page("weights/manifest").read().tobytes()


def deltas() -> dict[str, bytes]:
    """Return one page's delta that overwrites, and its twin that runs both ways."""
    old, new = wire_images()
    delta = Delta.diff(old, new, page=5, epoch=8, elem_width=2, source="trainer")
    both_ways = XorDelta.diff(old, new, page=5, epochs=(7, 8), elem_width=2)
    return {"delta.bin": delta.to_bytes(), "delta-xor.bin": both_ways.to_bytes()}


@cache
def small_files() -> dict[str, bytes]:
    """Return all golden files but the checkpoints, by name."""
    geometry = plan_geometry(UUID, SALT, data_bytes=1 << 20, page_slots=100, ring_bytes=1 << 16, flags=1)
    return {
        "arena-header.bin": encode_static(geometry),
        "event.bin": encode_event(EVENT),
        "weights-manifest.bin": manifest(),
        **{f"wire-{codec.name.lower()}.bin": wire_blob(codec) for codec in WireCodec},
        **graph_pages(),
        **deltas(),
    }


if __name__ == "__main__":
    target = Path(sys.argv[1])
    write_checkpoints(target)
    for file_name, content in small_files().items():
        (target / file_name).write_bytes(content)
