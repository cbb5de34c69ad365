"""What was asked (`Job`) and what was decided (`DatasetSpec`, `TrainingPlan`): pure data, kept in every result.

Section, key and unit names follow DLIO where it has them; the unit stands last in ours.
"""

from typing import Any

import msgspec

from stoker.core.checkpoints import CheckpointPlan
from stoker.core.kvcache import KvPlan
from stoker.core.options import Setting
from stoker.core.vectors import VectorPlan


class Job(msgspec.Struct, frozen=True):
    """What was asked: the verb (`feed`, `run training`, `dlio`, `gen`), the redacted words of the command line, and
    every setting with its origin."""

    verb: str
    arguments: tuple[str, ...] = ()
    settings: dict[str, Setting] = {}


class Spread(msgspec.Struct, frozen=True):
    """A duration in seconds, constant or drawn: `kind` is constant, normal, uniform, gamma, exponential, poisson.

    parameters: constant {value}; normal {mean, stdev}; uniform {min, max}; gamma {shape, scale};
    exponential {scale}; poisson {lam}. The draw's absolute value counts (as in DLIO).
    """

    kind: str = "constant"
    parameters: dict[str, float] = msgspec.field(default_factory=lambda: {"value": 0.0})

    def mean_seconds(self) -> float:
        """Return the expected value of the draw before its sign is dropped."""
        p = self.parameters
        means = {
            "constant": lambda: p["value"],
            "normal": lambda: p["mean"],
            "uniform": lambda: (p["min"] + p["max"]) / 2,
            "gamma": lambda: p["shape"] * p["scale"],
            "exponential": lambda: p["scale"],
            "poisson": lambda: p["lam"],
        }
        return means[self.kind]()


class DatasetSpec(msgspec.Struct, frozen=True):
    """One split of a dataset, enough to name, size and fill every file of it.

    `record_length_bytes` (mean payload of a sample) with `record_length_stdev_bytes` gives two-dimensional shapes by
    DLIO's rule; `record_dims` gives the shape itself. `split` is `train` or `valid`. `content_seed` and the two
    knobs decide the bytes: `compress_ratio` 2.0 means that they shrink to half; `duplicate_ratio` 0.5 that half of
    the 4 KiB blocks appear elsewhere.
    """

    format: str
    files: int
    samples_per_file: int = 1
    record_length_bytes: float = 65536.0
    record_length_stdev_bytes: float = 0.0
    record_dims: tuple[int, ...] = ()
    element_type: str = "uint8"
    split: str = "train"
    prefix: str = "img"
    subfolders: int = 0
    options: dict[str, Any] = {}
    content_seed: int = 10
    compress_ratio: float = 1.0
    duplicate_ratio: float = 0.0

    @property
    def samples(self) -> int:
        """Return the samples of the split."""
        return self.files * self.samples_per_file


class TrainingPlan(msgspec.Struct, frozen=True):
    """All that is decided before a training run starts: a pure function of the job and the machine's facts.

    One rank is one emulated accelerator. `steps_max` caps the steps of an epoch (0: no cap), `duration_seconds` the
    whole run (0: no cap); a run ends at whichever comes first, and epochs repeat until then when `epochs` is 0.
    `exclude_*_steps` are left out of the accelerator utilisation. `order` is `shuffled`, `sequential` or `dlio`
    (ascending within each rank's contiguous share). `evict` drops the dataset's cached pages before each epoch.
    `deviations` tell, a sentence each, where the plan departs from the model it is named after.
    `verify` is the ratio of samples whose checksum is checked, 0..1. `collate` is `views` or `stack`.
    `read_threads`, `queue_depth` (requests under way in each reader) and `request_bytes` are chosen while the run goes
    on where they are 0; any other number is pinned. What was chosen stands in each rank's result.
    A rank that is not heard of for `rank_deadline_seconds` is lost, and the run with it.
    `checkpoint` tells of the checkpoints that are written and read, beside the training or, without a dataset, alone.
    `vectors` tells of a collection that is loaded or searched, without a dataset.
    The ranks' hosts are sampled every `host_interval_seconds` (0: not at all), and so are `sample_hosts`, over SSH;
    more samples of a host than `host_samples_max` are thinned out.
    `kvcache` tells what is done to a KV cache, instead of training.
    """

    model: str
    dataset: DatasetSpec
    ranks: int
    batch_size: int
    computation: Spread
    target_url: str = ""
    accelerator: str = ""
    epochs: int = 1
    steps_max: int = 0
    duration_seconds: float = 0.0
    warmup_steps: int = 0
    read_threads: int = 4
    queue_depth: int = 0
    request_bytes: int = 0
    decode_threads: int = 1
    prefetch_batches: int = 2
    preprocess: Spread = Spread()
    order: str = "shuffled"
    seed: int = 123
    seed_change_epoch: bool = True
    evict: bool = True
    verify: float = 0.0
    collate: str = "views"
    exclude_start_steps: int = 1
    exclude_end_steps: int = 0
    au_threshold_ratio: float = 0.90
    barrier: bool = True
    evaluation: "EvaluationPlan | None" = None
    launcher: str = "local"
    host_interval_seconds: float = 10.0
    host_samples_max: int = 3600
    rank_deadline_seconds: float = 30.0
    sample_hosts: tuple[str, ...] = ()
    predicted: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    deviations: tuple[str, ...] = ()
    checkpoint: CheckpointPlan | None = None
    vectors: VectorPlan | None = None
    kvcache: KvPlan | None = None

    @property
    def trains(self) -> bool:
        """Tell whether there is anything to train on: a run of one of the other workloads alone has no dataset."""
        others = (self.checkpoint, self.vectors, self.kvcache)
        return all(other is None for other in others) or self.dataset.files > 0


class EvaluationPlan(msgspec.Struct, frozen=True):
    """The evaluation phase: its dataset split, batch size, seconds a step, and after which epochs it runs."""

    dataset: DatasetSpec
    batch_size: int
    computation: Spread
    after_epoch: int = 1
    epochs_between: int = 1
