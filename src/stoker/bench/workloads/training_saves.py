"""The checkpoints of a training run: after so many epochs, or after so many steps of each, with all ranks at a barrier.

A checkpoint after steps ends a block: its time belongs to no step, and utilisation is told of the blocks between.
"""

from collections.abc import Callable

from stoker.bench.workloads.checkpoint_work import CheckpointWork, OnNote, plan_of
from stoker.bench.workloads.comm import Comm
from stoker.bench.workloads.counters import Sources
from stoker.bench.workloads.meters import Meters
from stoker.checkpoint.layout import checkpoint_id
from stoker.core.plan import TrainingPlan
from stoker.storage.opening import open_store


class TrainingSaves:
    """One rank's share of them, with a store of its own: they may lie elsewhere than the dataset."""

    def __init__(self, plan: TrainingPlan, comm: Comm, stopped: Callable[[], bool], on_note: OnNote) -> None:
        self._what = plan_of(plan)
        self._store = open_store(self._what.target_url, create=True)
        meters = Meters(Sources(self._store, host_wide=comm.host_rank == 0))
        self._work = CheckpointWork(plan, comm, self._store, meters, stopped, on_note)
        self._number = 0

    @property
    def histograms(self) -> dict[str, str]:
        """Return the latencies of the pieces, encoded, by stage."""
        return self._work.histograms

    def is_due(self, step: int) -> bool:
        """Tell whether a checkpoint follows `step`, the number of steps taken in the epoch."""
        return self._what.steps_between > 0 and step % self._what.steps_between == 0

    def after_epoch(self, epoch: int, steps: int) -> bool:
        """Save if a checkpoint is due after the epoch; return whether the run is to stop."""
        since = epoch - self._what.after_epoch
        if self._what.steps_between > 0 or since < 0 or since % self._what.epochs_between:
            return False
        return self.save(epoch, steps + 1)

    def save(self, epoch: int, step: int) -> bool:
        """Save a checkpoint; return whether the run is to stop. Raises what the store raises."""
        self._number += 1
        return self._work.save(self._number, checkpoint_id(step, epoch))

    def close(self) -> None:
        """Close the store."""
        self._store.close()
