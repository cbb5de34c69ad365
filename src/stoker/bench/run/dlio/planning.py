"""From a resolved DLIO configuration to what will be done: datasets, the training plan, where things go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from stoker.bench.run.checkpoint import checkpoints_alone, store_place
from stoker.bench.run.dlio.checkpoints import checkpoint_plan, checkpoint_url
from stoker.bench.run.dlio.config import DlioConfig
from stoker.bench.run.dlio.datasets import TRAIN, VALID, check_dataset, dataset_notes, dataset_spec
from stoker.bench.run.dlio.output import OutputPlaces, output_places, render
from stoker.bench.run.dlio.target import credentials, data_url
from stoker.bench.run.dlio.typed import spread
from stoker.bench.run.plan import predicted
from stoker.bench.workloads.catalogue import decoders
from stoker.core import seed
from stoker.core.errors import UsageError
from stoker.core.files import redact_url
from stoker.core.plan import DatasetSpec, EvaluationPlan, Spread, TrainingPlan

PREFETCH_DEFAULT: Final = 2
RANKS_MAX: Final = 1 << 20
_ACCELERATORS: Final = ("v100", "a100", "h100", "b200", "mi355")


@dataclass(frozen=True)
class DlioRun:
    """What one DLIO command does.

    generate, train, evaluation, checkpoint   the workflow's switches
    plan          the training run over `plan.dataset` at `data_url`, with the evaluation and the checkpoints, or the
                  run of checkpoints alone; predictions only of what is run
    checkpoint_url      the folder of the checkpoints, empty without them
    datasets      the splits to generate: (spec, number of training files before it)
    keep_files    False: remove the dataset at the end, if it carries our marker
    places        the output folders      documents   Hydra's files by name
    credentials   environment variables that the file stands for; never logged, not part of the representation
    warnings      everything that is not as the user may think, each with file and line
    """

    name: str
    generate: bool
    train: bool
    evaluation: bool
    checkpoint: bool
    keep_files: bool
    plan: TrainingPlan
    data_url: str
    datasets: tuple[tuple[DatasetSpec, int], ...]
    places: OutputPlaces
    documents: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    checkpoint_url: str = ""
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    def require_work(self) -> None:
        """Raise UsageError when nothing is switched on that this version does."""
        if self.generate or self.train or self.checkpoint:
            return
        raise UsageError(
            "workload has nothing to run here",
            where=self.name,
            got="generate_data, train and checkpoint are all off",
            expected="workflow.generate_data, workflow.train or workflow.checkpoint",
        )


def to_plan(
    config: DlioConfig, ranks: int, *, moment_seconds: float | None = None, fresh_seed: int | None = None, cpus: int = 0
) -> DlioRun:
    """Return what the configuration asks of `ranks` emulated accelerators.

    `moment_seconds` is the time in folder names (now), `fresh_seed` the seed of a `random` shuffle (unpredictable) and
    `cpus` the usable CPUs (0: not held against read_threads).
    Raises UsageError for what cannot be done: too few samples, a format's refusal, a storage type we do not have.
    """
    if not 1 <= ranks <= RANKS_MAX:
        raise UsageError("number of ranks is no good", expected=f"1 to {RANKS_MAX}", got=str(ranks))
    switches = {
        name: config.flag(f"workflow.{name}") for name in ("generate_data", "train", "evaluation", "checkpoint")
    }
    train = dataset_spec(config, TRAIN)
    valid = dataset_spec(config, VALID)
    _check_datasets(train, valid, switches)
    url = data_url(config)
    warnings = tuple(str(problem) for problem in config.problems)
    notes = [*config.notes, *warnings, *dataset_notes(config, train), *_thread_notes(config, cpus)]
    evaluation = _evaluation(config, valid, ranks) if switches["evaluation"] and switches["train"] else None
    plan = _training(config, train, ranks, notes, fresh_seed)
    plan = msgspec.structs.replace(plan, target_url=redact_url(url), evaluation=evaluation)
    place = ""
    if switches["checkpoint"]:
        what = checkpoint_plan(config, ranks, train=switches["train"], fresh_seed=fresh_seed)
        place = store_place(checkpoint_url(config), what)
        plan = msgspec.structs.replace(plan, checkpoint=msgspec.structs.replace(what, target_url=redact_url(place)))
        if not switches["train"]:
            plan = checkpoints_alone(plan, (*config.notes, *warnings))
    if switches["train"]:
        plan = _with_predictions(config, plan)
    places = output_places(config, moment_seconds=moment_seconds)
    return DlioRun(
        name=config.name,
        generate=switches["generate_data"],
        train=switches["train"],
        evaluation=evaluation is not None,
        checkpoint=switches["checkpoint"],
        keep_files=config.flag("dataset.keep_files"),
        plan=plan,
        data_url=url,
        datasets=tuple((spec, before) for spec, before in ((train, 0), (valid, train.files)) if spec.files),
        places=places,
        documents=render(config, places),
        warnings=warnings,
        checkpoint_url=place,
        credentials=credentials(config),
    )


def _check_datasets(train: DatasetSpec, valid: DatasetSpec, switches: Mapping[str, bool]) -> None:
    """Raise UsageError for a split that is to be made or read and cannot be."""
    if not (switches["generate_data"] or switches["train"]):
        return
    if not train.files and not valid.files:
        raise UsageError("dataset has no files", where="dataset.num_files_train", expected="at least 1")
    if train.files:
        check_dataset(train)
    elif switches["train"]:
        raise UsageError("nothing to train on", where="dataset.num_files_train", expected="at least 1", got="0")
    if valid.files:
        check_dataset(valid, files_before=train.files)


def _duration(config: DlioConfig, path: str) -> Spread:
    return spread(config.value(path), config.value(f"{path}_stdev"), path)


def _training(
    config: DlioConfig, dataset: DatasetSpec, ranks: int, notes: list[str], fresh_seed: int | None
) -> TrainingPlan:
    order, order_seed, order_notes = _order(config, fresh_seed)
    read_threads = max(config.whole("reader.read_threads"), 1)
    return TrainingPlan(
        model=config.text("model.name"),
        accelerator=_accelerator(config),
        dataset=dataset,
        ranks=ranks,
        batch_size=config.whole("reader.batch_size"),
        computation=_duration(config, "train.computation_time"),
        epochs=config.whole("train.epochs"),
        steps_max=max(config.whole("train.total_training_steps"), 0),
        read_threads=read_threads,
        decode_threads=decoders(dataset.format, read_threads, config.whole("reader.computation_threads")),
        prefetch_batches=config.whole("reader.prefetch_size") or PREFETCH_DEFAULT,
        preprocess=_duration(config, "reader.preprocess_time"),
        order=order,
        seed=order_seed,
        seed_change_epoch=config.flag("train.seed_change_epoch"),
        exclude_start_steps=config.whole("output.metric.exclude_start_steps"),
        exclude_end_steps=config.whole("output.metric.exclude_end_steps"),
        au_threshold_ratio=config.number("metric.au"),
        launcher="auto",
        notes=(*notes, *order_notes),
    )


def _order(config: DlioConfig, fresh_seed: int | None) -> tuple[str, int, list[str]]:
    """Return order, seed and remarks: what the two shuffles are meant to do, which in DLIO they mostly do not."""
    files, samples = config.text("reader.file_shuffle"), config.text("reader.sample_shuffle")
    own_seed = config.whole("train.seed")
    if files == samples == "off":
        return "dlio", own_seed, ["both shuffles are off: each rank reads its own share in ascending order"]
    notes = []
    if samples == "off" and config.whole("dataset.num_samples_per_file") > 1:
        notes.append("file_shuffle alone is given: here the samples are shuffled across all files")
    if "random" not in (files, samples):
        return "shuffled", own_seed, notes
    notes.append("a random shuffle takes a fresh seed, so the order differs from run to run")
    return "shuffled", seed.fresh() if fresh_seed is None else fresh_seed, notes


def _accelerator(config: DlioConfig) -> str:
    """Return the accelerator that a workload's name ends in, as in `unet3d_h100`."""
    suffix = config.name.removesuffix("_s3").rpartition("_")[2]
    return suffix if suffix in _ACCELERATORS else ""


def _with_predictions(config: DlioConfig, plan: TrainingPlan) -> TrainingPlan:
    """Return the plan with its predictions. Raises UsageError when the data give too few steps."""
    available = plan.dataset.samples // (plan.batch_size * plan.ranks)
    if plan.steps_max > available > 0:
        raise UsageError(
            "total_training_steps is more than the data give",
            where=config.where("train.total_training_steps"),
            expected=f"at most {available} steps an epoch ({plan.ranks} ranks, batch {plan.batch_size})",
            got=str(plan.steps_max),
        )
    plan = predicted(plan)
    notes = list(plan.notes)
    dropped = round(plan.predicted.get("dropped_samples", 0.0))
    if dropped:
        notes.append(f"{dropped} samples an epoch do not fill a step of all ranks and are left out")
    steps = round(plan.predicted["steps_per_epoch"])
    if steps <= plan.exclude_start_steps + plan.exclude_end_steps:
        notes.append(f"all {steps} steps of an epoch are excluded from the utilisation, so it cannot be told")
    return msgspec.structs.replace(plan, notes=tuple(notes))


def _evaluation(config: DlioConfig, dataset: DatasetSpec, ranks: int) -> EvaluationPlan:
    """Return the evaluation. Raises UsageError for numbers that are allowed only while there is none."""
    for path in ("reader.batch_size_eval", "evaluation.epochs_between_evals"):
        if config.whole(path) < 1:
            raise UsageError(f"{path} is no good", where=config.where(path), expected="at least 1 with evaluation on")
    batch_size = config.whole("reader.batch_size_eval")
    if dataset.samples < batch_size * ranks:
        raise UsageError(
            "evaluation data are too few for one step",
            where=config.where("dataset.num_files_eval"),
            expected=f"{batch_size * ranks} samples ({ranks} ranks x batch {batch_size})",
            got=f"{dataset.samples}",
        )
    return EvaluationPlan(
        dataset=dataset,
        batch_size=batch_size,
        computation=_duration(config, "evaluation.eval_time"),
        after_epoch=max(config.whole("evaluation.eval_after_epoch"), 1),
        epochs_between=config.whole("evaluation.epochs_between_evals"),
    )


def _thread_notes(config: DlioConfig, cpus: int) -> list[str]:
    threads = config.whole("reader.read_threads")
    return [f"read_threads {threads} is more than the {cpus} usable CPUs"] if 0 < cpus < threads else []
