"""Ours: epochs through the Loader. Arguments: url, spec (fields of DatasetSpec), loader (LoaderOptions), epochs, and
what a consumer would do: read_samples reads every byte of the samples, arrays asks for an array of each column named.
"""

import numpy as np
from window import arguments, measure_epochs

from stoker.bench.workloads.source import dataset_manifest
from stoker.core.plan import DatasetSpec
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.opening import open_store


def main():
    """Deliver the epochs asked for."""
    asked = arguments()
    spec = DatasetSpec(**asked["spec"])
    store = open_store(asked["url"])
    with Loader(store, dataset_manifest(store, spec), LoaderOptions(**asked["loader"])) as loader:

        def epoch():
            payload_bytes = samples = 0
            for batch in loader.epoch(loader.next_epoch):
                payload_bytes += batch.payload_bytes
                samples += len(batch)
                for name in asked.get("arrays", ()):
                    batch.array(name)
                if asked.get("read_samples"):
                    for sample in batch.samples:
                        np.bitwise_xor.reduce(np.asarray(sample).reshape(-1))
            return payload_bytes, samples

        measure_epochs(epoch, asked["epochs"])
    store.close()


if __name__ == "__main__":
    main()
