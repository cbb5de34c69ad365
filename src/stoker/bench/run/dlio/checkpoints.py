"""DLIO's model and checkpoint sections as a plan of checkpoints: alone, or inside the training loop."""

from typing import Final

from stoker.bench.run.dlio.config import DlioConfig
from stoker.bench.run.dlio.target import folder_url
from stoker.checkpoint.layout import check_shape
from stoker.core import seed
from stoker.core.checkpoints import CheckpointPlan, ModelShape
from stoker.core.errors import UsageError
from stoker.core.files import redact_url

FOLDER: Final = "checkpoint.checkpoint_folder"
_NETWORK: Final = ("s3", "az", "gs")


def checkpoint_url(config: DlioConfig) -> str:
    """Return the URL of the folder that holds the checkpoints. Raises UsageError as `data_url` does."""
    return folder_url(config, FOLDER)


def model_shape(config: DlioConfig, ranks: int) -> ModelShape:
    """Return the model that the configuration describes, checked.

    A positive `num_layers` means a transformer, or layers of `layer_parameters`; otherwise the model is one blob of
    `model_size_bytes`. Data parallelism follows from the ranks, and is pinned in subset mode alone.
    """
    layers = max(config.whole("model.num_layers"), 0)
    subset = config.text("checkpoint.mode") == "subset"
    pinned = config.whole("model.parallelism.data")
    if subset and pinned < 1:
        raise UsageError(
            "subset mode needs a pinned data parallelism",
            where=config.where("model.parallelism.data"),
            expected="model.parallelism.data of at least 1",
        )
    shape = ModelShape(
        layers=layers,
        hidden_size=config.whole("model.transformer.hidden_size") if layers else 0,
        ffn_hidden_size=config.whole("model.transformer.ffn_hidden_size") if layers else 0,
        attention_heads=config.whole("model.transformer.num_attention_heads"),
        kv_heads=config.whole("model.transformer.num_kv_heads"),
        vocab_size=config.whole("model.transformer.vocab_size") if layers else 0,
        tensor=config.whole("model.parallelism.tensor"),
        pipeline=config.whole("model.parallelism.pipeline"),
        data=pinned if subset else 0,
        zero_stage=config.whole("model.parallelism.zero_stage"),
        model_type=config.text("model.model_datatype"),
        optimizer_type=config.text("model.optimizer_datatype"),
        blob_bytes=0 if layers else config.whole("model.model_size_bytes"),
        layer_lengths=tuple(config.value("model.layer_parameters")),
        group_lengths=tuple(config.value("model.optimization_groups")),
    )
    check_shape(shape, ranks)
    return shape


def checkpoint_plan(config: DlioConfig, ranks: int, *, train: bool, fresh_seed: int | None) -> CheckpointPlan:
    """Return the checkpoints of the configuration; with `train` they belong to the training loop.

    DLIO sleeps the absolute value of `time_between_checkpoints`. Raises UsageError for a model that cannot be, or
    nothing to do.
    """
    writes, reads = (max(config.whole(f"checkpoint.num_checkpoints_{verb}"), 0) for verb in ("write", "read"))
    if not train and not writes and not reads:
        raise UsageError(
            "no checkpoint is to be written or read",
            where=config.where("checkpoint.num_checkpoints_write"),
            expected="checkpoint.num_checkpoints_write or num_checkpoints_read of at least 1",
        )
    url = checkpoint_url(config)
    synced = config.flag("checkpoint.fsync") or url.partition("://")[0] in _NETWORK
    return CheckpointPlan(
        shape=model_shape(config, ranks),
        writes=0 if train else writes,
        reads=0 if train else reads,
        interval_seconds=abs(config.number("checkpoint.time_between_checkpoints")),
        target_url=redact_url(url),
        fsync="full" if synced else "none",
        rank_sync=config.flag("checkpoint.rank_sync"),
        subset=config.text("checkpoint.mode") == "subset",
        content_seed=seed.fresh() if fresh_seed is None else fresh_seed,
        after_epoch=max(config.whole("checkpoint.checkpoint_after_epoch"), 1),
        epochs_between=max(config.whole("checkpoint.epochs_between_checkpoints"), 1),
        steps_between=max(config.whole("checkpoint.steps_between_checkpoints"), 0),
    )
