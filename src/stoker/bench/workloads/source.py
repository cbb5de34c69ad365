"""The dataset a rank reads: the opened store, what it is, and the manifests of the splits."""

from typing import Final

import numpy as np

from stoker.bench.workloads.counters import device_under
from stoker.bench.workloads.mounts import mount_of
from stoker.bench.workloads.reports import StoreFacts
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.loader.dataset.discover import open_manifest
from stoker.loader.dataset.naming import FileKeys
from stoker.loader.dataset.shapes import sample_spec
from stoker.loader.loader import Loader
from stoker.loader.manifest import Manifest
from stoker.loader.options import LoaderOptions
from stoker.loader.pacing import usable_cpus
from stoker.storage.api import Store, SupportsLocalPath

_REQUESTED: Final = {
    "file": "buffered",
    "direct": "direct",
    "s3": "network",
    "az": "network",
    "gs": "network",
    "mem": "memory",
}


def store_facts(store: Store, target_url: str) -> StoreFacts:
    """Return what the target is, and how it is really read."""
    facts = store.capabilities
    scheme = target_url.partition("://")[0] if "://" in target_url else "file"
    kind, device = scheme, ""
    if isinstance(store, SupportsLocalPath):
        mount, found = mount_of(store.root), device_under(store.root)
        kind = mount.kind if mount else ""
        device = found.name if found else ""
    requested = _REQUESTED.get(scheme, facts.io_mode)
    return StoreFacts(store.url, requested, facts.io_mode, kind, device, facts.notes, facts.durable)


def dataset_manifest(store: Store, dataset: DatasetSpec) -> Manifest:
    """Return the files of the split that the plan names. Raises as `open_manifest` does.

    A store that keeps nothing has every file of the spec, each of the size it gives.
    """
    if store.url.startswith("null://"):
        return _imagined(store, dataset)
    manifest = open_manifest(
        store,
        dataset.split,
        format_name=dataset.format,
        samples_per_file=dataset.samples_per_file,
        limit=dataset.files,
    )
    if manifest.spec is None and manifest.format == "synthetic":
        # Foreign files of this format hold a number and no shape; whoever planned the run knows it.
        sample = sample_spec(dataset, 0)
        manifest.options = {**manifest.options, "shape": sample.shape, "dtype": sample.dtype}
    return manifest


def _imagined(store: Store, dataset: DatasetSpec) -> Manifest:
    keys = FileKeys(dataset)
    size_bytes = store.stat(keys[0]).size_bytes
    return Manifest(
        dataset.format,
        keys,
        np.broadcast_to(np.int64(size_bytes), (dataset.files,)),
        np.broadcast_to(np.int64(dataset.samples_per_file), (dataset.files,)),
        spec=dataset,
        options=dataset.options,
    )


def training_loader(store: Store, manifest: Manifest, plan: TrainingPlan, *, rank: int) -> Loader:
    """Return the loader of the training split."""
    return Loader(store, manifest, _options(plan, plan.batch_size, plan.preprocess), rank=rank, world_size=plan.ranks)


def evaluation_loader(store: Store, manifest: Manifest, plan: TrainingPlan, *, rank: int) -> Loader:
    """Return the loader of the evaluation split, which all its steps are taken of."""
    assert plan.evaluation is not None
    options = _options(plan, plan.evaluation.batch_size, plan.preprocess, whole=True)
    return Loader(store, manifest, options, rank=rank, world_size=plan.ranks)


def _options(plan: TrainingPlan, batch_size: int, preprocess: Spread, *, whole: bool = False) -> LoaderOptions:
    return LoaderOptions(
        batch_size=batch_size,
        read_threads=plan.read_threads,
        queue_depth=plan.queue_depth,
        request_bytes=plan.request_bytes,
        cpus=max(1, usable_cpus() // plan.ranks),  # where the ranks have several hosts, too few rather than too many
        decode_threads=plan.decode_threads,
        prefetch_batches=plan.prefetch_batches,
        order=plan.order,
        seed=plan.seed,
        seed_change_epoch=plan.seed_change_epoch,
        collate=plan.collate,
        verify=plan.verify,
        preprocess=preprocess,
        map_bytes=0,  # the evidence is what read calls move: what is mapped, none of them counts
        steps_max=0 if whole else plan.steps_max,
    )
