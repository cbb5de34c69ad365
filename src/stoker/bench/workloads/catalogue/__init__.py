"""The MLPerf Storage training workloads as data: a table a model under `data/`, an entry an accelerator."""

from stoker.bench.workloads.catalogue.entries import (
    EDITIONS,
    CatalogueEntry,
    CheckpointBlock,
    accelerators,
    decoders,
    entries,
    entry,
    models,
)

__all__ = ["EDITIONS", "CatalogueEntry", "CheckpointBlock", "accelerators", "decoders", "entries", "entry", "models"]
