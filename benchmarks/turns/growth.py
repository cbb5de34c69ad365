"""Ours: what grows with the dataset, each part in a fresh process. Arguments: part, files, and what the part needs.

Prints the seconds and the memory above that of the imports.
"""

import json
import time

import numpy as np
from window import arguments, peak_bytes

from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.manifest_file import save_manifest
from stoker.loader.dataset.naming import FileKeys
from stoker.loader.dealing import Dealing
from stoker.loader.loader import Loader
from stoker.loader.manifest import Manifest
from stoker.loader.options import LoaderOptions
from stoker.loader.order import EpochOrder, OrderRule, SampleSpace, digest
from stoker.storage.opening import open_store

RECORD_BYTES = 4096


def imagined(files, samples_per_file=1):
    """Return the manifest of files that nobody made."""
    options = {"shape": [RECORD_BYTES], "dtype": "uint8"}
    spec = DatasetSpec("raw", files, samples_per_file, record_dims=(RECORD_BYTES,), options=options)
    sizes = np.full(files, RECORD_BYTES * samples_per_file, np.int64)
    counts = np.full(files, samples_per_file, np.int64)
    return Manifest("raw", FileKeys(spec), sizes, counts, spec=spec, options=options)


def listing(asked):
    """List a folder of files."""
    store = open_store(asked["url"])
    yield
    assert sum(1 for _ in store.list("train/")) == asked["files"]


def opening(asked):
    """Open a saved manifest."""
    store = open_store(asked["url"])
    yield
    assert len(open_manifest(store, "train")) == asked["files"]


def saving(asked):
    """Save a manifest."""
    store = open_store(asked["url"])
    yield
    save_manifest(store, "train", imagined(asked["files"]))


def planning(asked):
    """Make a loader and plan an epoch: everything up to the first read."""
    store = open_store(f"null://?object_bytes={RECORD_BYTES}")
    manifest = imagined(asked["files"])
    yield
    with Loader(store, manifest, LoaderOptions(batch_size=32), rank=0, world_size=8) as loader:
        loader.epoch(1)


def shuffling(asked):
    """Compute the place of every sample of an epoch, piece by piece."""
    yield
    order = EpochOrder(SampleSpace(np.ones(asked["files"], np.int64)), OrderRule(), 1)
    for start in range(0, asked["files"], 1 << 18):
        order.at(np.arange(start, min(start + (1 << 18), asked["files"])))


def ranks(asked):
    """Plan an epoch for every rank of many: each rank's sample numbers, in its order; together they are all samples."""
    manifest = imagined(asked["files"], asked["samples_per_file"])
    yield
    space, world = SampleSpace(manifest.samples), asked["ranks"]
    order = EpochOrder(space, OrderRule(), 1)
    dealing = Dealing([(0, space.total)], batch_size=asked["batch_size"], ranks=world, wide=False)
    found = 0
    for rank in range(asked["planned_ranks"]):
        ids, _ = order.at(dealing.positions(rank, 0, dealing.steps))
        found ^= digest(ids) if asked["check"] else len(ids)
    if asked["check"]:
        left = np.concatenate([np.arange(*pair) for pair in dealing.left(dealing.steps)] or [np.arange(0)])
        assert found ^ digest(order.at(left)[0]) == digest(np.arange(space.total))


PARTS = {"list": listing, "save": saving, "open": opening, "plan": planning, "shuffle": shuffling, "ranks": ranks}


def main():
    """Prepare a part, then time it."""
    asked = arguments()
    part = PARTS[asked["part"]](asked)
    next(part)
    before, cpu, start = peak_bytes(), time.process_time(), time.perf_counter()
    next(part, None)
    seconds = time.perf_counter() - start
    spent = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({**spent, "peak_bytes": peak_bytes(), "more_bytes": peak_bytes() - before}))


if __name__ == "__main__":
    main()
