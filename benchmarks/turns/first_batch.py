"""Ours: one rank of many, from its imports to its first batch on `null://`. Arguments: rank, ranks. Prints the time."""

import json
import time

from window import arguments, peak_bytes

from stoker.bench.workloads.source import dataset_manifest
from stoker.core.plan import DatasetSpec
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.opening import open_store


def main():
    """Take one batch."""
    asked = arguments()
    spec = DatasetSpec("raw", 1 << 20, record_dims=(4096,), options={"shape": [4096], "dtype": "uint8"})
    store = open_store("null://?object_bytes=4096")
    options = LoaderOptions(batch_size=8, read_threads=2)
    with Loader(store, dataset_manifest(store, spec), options, rank=asked["rank"], world_size=asked["ranks"]) as loader:
        next(loader.epoch(1))
        print(json.dumps({"first_batch": time.time(), "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main()
