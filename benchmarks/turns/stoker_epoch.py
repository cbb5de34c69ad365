"""Ours: epochs through the Loader. Arguments: url, spec (fields of DatasetSpec), loader (LoaderOptions), epochs."""

from window import WARM_UP_EPOCHS, Window, arguments

from stoker.bench.workloads.source import dataset_manifest
from stoker.core.plan import DatasetSpec
from stoker.loader.loader import Loader
from stoker.loader.options import LoaderOptions
from stoker.storage.opening import open_store


def main():
    """Deliver some epochs unmeasured, then those asked for."""
    asked = arguments()
    spec = DatasetSpec(**asked["spec"])
    store = open_store(asked["url"])
    window, payload_bytes, samples = Window(), 0, 0
    with Loader(store, dataset_manifest(store, spec), LoaderOptions(**asked["loader"])) as loader:
        for epoch in range(1, WARM_UP_EPOCHS + 1):
            for _ in loader.epoch(epoch):
                pass
        window.start()
        for epoch in range(WARM_UP_EPOCHS + 1, WARM_UP_EPOCHS + asked["epochs"] + 1):
            for batch in loader.epoch(epoch):
                payload_bytes += batch.payload_bytes
                samples += len(batch)
        window.stop()
    store.close()
    window.report(payload_bytes, samples)


if __name__ == "__main__":
    main()
