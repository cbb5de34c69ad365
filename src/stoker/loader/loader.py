"""The loader: batches of decoded samples, in a proven order, with every byte and every wait accounted for.

    loader = Loader(open_store("file:///data"), manifest, LoaderOptions(batch_size=8), rank=0, world_size=4)
    for epoch in range(loader.next_epoch, 4):
        for batch in loader.epoch(epoch):
            train(batch.samples)

A loader belongs to the process that made it. Worker processes make one each: `rank * workers + worker` of
`world_size * workers`.
"""

import os
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core import clock
from stoker.core.errors import ShortReadError, UsageError
from stoker.core.histogram import Histogram
from stoker.core.ledger import Ledger
from stoker.core.plan import Spread
from stoker.formats.api import FORMATS, DecodesMany
from stoker.loader.batch import Assembler, Batch
from stoker.loader.decode import Decoder, Preprocessing
from stoker.loader.epoch import EpochPlan, dealt_on
from stoker.loader.fetch import Fetcher, Source
from stoker.loader.flow import Bounds, Flow, Stages
from stoker.loader.layouts import Layouts
from stoker.loader.lending import Lender
from stoker.loader.manifest import Manifest
from stoker.loader.mapped import MappedFiles, mapped_files
from stoker.loader.options import LoaderOptions, in_flight_bytes
from stoker.loader.order import EpochOrder, Int64s, OrderRule, SampleSpace, digest
from stoker.loader.pacing import Pace, usable_cpus
from stoker.loader.state import LoaderState, decode_state, encode_state
from stoker.loader.tally import Tally
from stoker.loader.tasks import FileChoice, Planner
from stoker.loader.tuning import Tuner, tuner_for
from stoker.loader.tuning_bounds import Settings
from stoker.storage.api import Store, SupportsRetryCount
from stoker.storage.batch import batch_lane

_DIGEST_SAMPLES: Final = 8192


class Loader:
    """Reads a dataset in batches for rank `rank` of `world_size`.

    steps_per_epoch     steps of a whole epoch, the same for every rank
    usable_samples      samples of the dataset that an epoch visits, over all ranks: whole steps only
    dropped_samples     the others, of each epoch; which ones changes with the order
    captured            with `capture_order`: the sample numbers of the batches handed out in the epoch, one array each

    The store stays the caller's. Not safe from several threads; one epoch at a time.
    """

    def __init__(
        self, store: Store, manifest: Manifest, options: LoaderOptions, *, rank: int = 0, world_size: int = 1
    ) -> None:
        """Check everything that can be checked without reading samples.

        Raises UsageError for a bad option or rank, or a dataset too small for one step.
        """
        if not (world_size >= 1 and 0 <= rank < world_size):
            raise UsageError("rank is not one of the world's", expected=f"0 to {world_size - 1}", got=str(rank))
        options.check(manifest)
        self.options, self.rank, self.world_size = options, rank, world_size
        self._store, self._manifest = store, manifest
        self._process = os.getpid()
        self._space = SampleSpace(manifest.samples)
        self._format = FORMATS.load(manifest.format)
        self._check_size()
        join_bytes = 0 if options.order == "sequential" else options.join_bytes
        self._layouts = Layouts(store, manifest, self._format, join_bytes=join_bytes)
        window_samples = self._layouts.window_samples()
        self._rule = OrderRule(options.order, options.seed, options.seed_change_epoch, window_samples)
        self._lane = batch_lane(store)
        # What is verified, held or costly to decode goes file by file, so that decoders can share it.
        quick = isinstance(self._format, DecodesMany) and not options.verify and options.preprocess == Spread()
        self._whole_files = self._layouts.whole_files() if self._lane.reads and quick else None
        tuner = self._tuner(max(window_samples, 1))
        readers = tuner.settings.readers
        self._in_flight_bytes_max = in_flight_bytes(options, manifest, window_samples, readers)
        self._lender = Lender(self._in_flight_bytes_max)
        self._tally = Tally(tuner.readers_max + options.decode_threads)
        self._pace = Pace(tuner, self._tally)
        self._mapped = mapped_files(store, manifest, options.map_bytes)
        self._retries_before = store.retry_count if isinstance(store, SupportsRetryCount) else 0
        self._state = self._fresh(1)
        full = self._plan(self._state)
        self.steps_per_epoch = full.last_step
        self.usable_samples = full.dealing.steps * options.batch_size * world_size
        self.dropped_samples = self._space.total - self.usable_samples
        self.captured: list[Int64s] = []
        self._digest = 0
        self._undigested: list[Int64s] = []
        self._epoch_plan = full
        self._flow: Flow | None = None
        self._resuming = False
        self._closed = False

    def _check_size(self) -> None:
        needed = self.options.batch_size * self.world_size
        if self._space.total < needed:
            raise UsageError(
                "too few samples for one step",
                where=self._store.url,
                expected=f"at least {needed} (batch {self.options.batch_size} x {self.world_size} ranks)",
                got=f"{self._space.total} samples in {self._space.files} files",
                remedy="generate more files, or use smaller batches or fewer ranks",
            )

    def _tuner(self, unit_samples: int) -> Tuner:
        """Return what chooses the settings of reading. `unit_samples` are read as one."""
        options, manifest = self.options, self._manifest
        unit_bytes = manifest.total_bytes * unit_samples // max(manifest.total_samples, 1)
        return tuner_for(
            self._store.capabilities,
            cpus=options.cpus or usable_cpus(),
            sample_bytes=unit_bytes,
            pinned=Settings(options.read_threads, options.queue_depth, options.request_bytes),
            queues=self._lane.queues,
        )

    def _fresh(self, epoch: int) -> LoaderState:
        state = LoaderState(
            epoch=epoch,
            intervals=((0, self._space.total),),
            rule=self._rule,
            files=self._space.files,
            total_samples=self._space.total,
            total_bytes=self._manifest.total_bytes,
        )
        return self._mine(state)

    def _mine(self, state: LoaderState) -> LoaderState:
        return dealt_on(state, batch_size=self.options.batch_size, world_size=self.world_size, rank=self.rank)

    def _plan(self, state: LoaderState) -> EpochPlan:
        dealing = state.dealing()
        last_step = dealing.steps
        if self.options.steps_max:
            last_step = min(last_step, max(state.step, self.options.steps_max - state.steps_before))
        return EpochPlan(
            epoch=state.epoch,
            order=EpochOrder(self._space, self._rule, state.epoch),
            dealing=dealing,
            rank=self.rank,
            first_step=state.step,
            last_step=last_step,
            steps_before=state.steps_before,
            total_samples=self._space.total,
        )

    @property
    def next_epoch(self) -> int:
        """Return the epoch to ask for next: the one in progress, or the one after the last finished."""
        return self._state.epoch

    def epoch(self, number: int) -> "Batches":
        """Return an iterator over the batches of epoch `number`, from 1; reading begins with its first `next`.

        After `load_state_dict` it goes on where the state was taken, otherwise it begins at the beginning. An iterator
        that is still open from before is ended. Errors of reading and decoding surface at the `next` whose batch they
        spoil, and end the iteration.
        Raises UsageError for an epoch other than the one a loaded state is in the middle of.
        """
        self._check_usable()
        if number < 1:
            raise UsageError("epochs count from 1", got=str(number))
        if self._resuming and self._state.epoch != number:
            raise UsageError(
                "loader state is in the middle of another epoch",
                expected=f"epoch {self._state.epoch}",
                got=f"epoch {number}",
                remedy="ask for next_epoch",
            )
        self._end_flow()
        state = self._state if self._resuming else self._fresh(number)
        self._resuming = False
        self._state = state
        self._epoch_plan = plan = self._plan(state)
        self._digest = 0
        self._undigested.clear()
        self.captured = []
        self._flow = flow = self._new_flow(plan)
        return Batches(self, flow, plan)

    def _end_flow(self) -> None:
        flow, self._flow = self._flow, None
        if flow is not None:
            flow.close()

    def _new_flow(self, plan: EpochPlan) -> Flow:
        options, manifest = self.options, self._manifest
        choice = FileChoice(options.verify, options.seed, plan.epoch)
        stages = Stages(
            Fetcher(
                Source(self._store, manifest, self._layouts),
                self._lender,
                self._tally,
                self._pace,
                whole_file=self._format.whole_file,
                mapped=self._mapped,
            ),
            Decoder(
                self._format,
                manifest,
                self._tally,
                Preprocessing(options.preprocess, options.seed, self.rank),
                options.batch_size,
                self._lender,
                None if self._whole_files is None else self._whole_files.context,
            ),
            Assembler(
                self._lender, stack=options.collate == "stack", every_column=bool(manifest.options.get("columns"))
            ),
            self._tally,
            self._pace,
        )
        windowed_readers = self._pace.settings.readers if self._rule.window_samples > 0 else 0
        bounds = Bounds(options, self._in_flight_bytes_max, windowed_readers)
        planner = Planner(
            plan,
            manifest,
            self._space,
            choice,
            batched=self._lane.reads,
            bundles=self._whole_files is not None,
            alone_bytes=0 if self._mapped is None else options.map_bytes,
        )
        return Flow(planner, stages, options, bounds)

    def _check_usable(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "loader was made in another process",
                expected=f"process {self._process}",
                got=f"process {os.getpid()}",
                remedy="open a store and make a loader in each worker process, with its own rank",
            )
        if self._closed:
            raise UsageError("loader is closed", remedy="make a new one")

    def _delivered(self, batch: Batch, done_step: int) -> None:
        """Enter a batch that is being handed over."""
        ledger = self._tally.consumer
        ledger.delivered_bytes += batch.payload_bytes
        ledger.samples_delivered += len(batch)
        self._undigested.append(batch.sample_ids)
        if len(self._undigested) * self.options.batch_size >= _DIGEST_SAMPLES:
            self.order_digest()
        if self.options.capture_order:
            self.captured.append(batch.sample_ids)
        plan = self._epoch_plan
        if done_step == plan.last_step:
            self._state = self._fresh(plan.epoch + 1)
        else:
            self._state = msgspec.structs.replace(self._state, step=done_step)

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader stands after the last batch handed out, as JSON-ready data.

        With every rank at the same step any rank's state continues all of them, on any number of ranks; for ranks at
        different steps see `merge_states`.
        """
        return encode_state(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the next `epoch(next_epoch)` yields what was left.

        Raises UsageError for a malformed state, and for one of another dataset, seed or order.
        """
        self._check_usable()
        loaded = decode_state(state)
        own = self._fresh(loaded.epoch)
        for name in ("files", "total_samples", "total_bytes", "rule"):
            if getattr(loaded, name) != getattr(own, name):
                raise UsageError(
                    "loader state is of another dataset, seed or order",
                    where=name,
                    expected=str(getattr(own, name)),
                    got=str(getattr(loaded, name)),
                )
        self._end_flow()
        self._state = self._mine(loaded)
        if self._plan(self._state).steps == 0:
            self._state = self._fresh(loaded.epoch + 1)
        self._resuming = not self._state.untouched()

    def order_digest(self) -> int:
        """Return the digest of the samples handed out in the epoch begun last.

        The XOR over all ranks is `expected_digest()` when every sample was visited once; see `order.digest`.
        """
        if self._undigested:
            self._digest ^= digest(np.concatenate(self._undigested))
            self._undigested.clear()
        return self._digest

    def expected_digest(self) -> int:
        """Return what the digests of all ranks XOR to, for the epoch begun last, from where it began or was resumed.

        Computed from the plan: O(samples) time, no memory to speak of.
        """
        return self._epoch_plan.expected_digest()

    def expected_samples(self) -> int:
        """Return how many samples all ranks together visit in the epoch begun last, from where it began."""
        return self._epoch_plan.steps * self.options.batch_size * self.world_size

    @property
    def ledger(self) -> Ledger:
        """Return the byte counts since the loader was made."""
        ledger = self._tally.ledger()
        ledger.requested_bytes += self._layouts.requested_bytes
        ledger.from_cache_bytes += self._layouts.cached_bytes
        ledger.from_store_bytes += self._layouts.requested_bytes - self._layouts.cached_bytes
        if isinstance(self._store, SupportsRetryCount):
            ledger.retries += self._store.retry_count - self._retries_before
        return ledger

    @property
    def tuning(self) -> dict[str, Any]:
        """Return what reading was set to, at first and now, what was pinned, and why, as JSON-ready data."""
        return self._pace.told()

    @property
    def histograms(self) -> dict[str, Histogram]:
        """Return the durations of each stage's operations, and of each epoch's first batch."""
        return self._tally.histograms()

    @property
    def busy_seconds(self) -> dict[str, float]:
        """Return the seconds all threads together worked in each stage."""
        return self._tally.busy_seconds()

    @property
    def stall_seconds(self) -> dict[str, float]:
        """Return the seconds `next` took, split over the stages at work meanwhile, and `queue` for none."""
        return self._tally.stall_seconds()

    def close(self) -> None:
        """Stop reading and end the threads; closing twice is harmless. Batches that were handed out stay good."""
        self._closed = True
        self._end_flow()
        self._lender.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Batches(Iterator[Batch]):
    """The batches of one pass, in order. Closing it, or dropping it unfinished, ends its threads."""

    def __init__(self, loader: Loader, flow: Flow, plan: EpochPlan) -> None:
        self._loader = loader
        self._flow = flow
        self._plan = plan
        self._next_step = plan.first_step
        self._open = True
        self._end = weakref.finalize(self, flow.stop)

    def __next__(self) -> Batch:
        if not self._open:
            raise StopIteration
        loader, plan, step = self._loader, self._plan, self._next_step
        loader._check_usable()
        if loader._flow is not self._flow:
            self._open = False
            raise UsageError("another epoch was begun meanwhile", remedy="use one iterator at a time")
        if loader._mapped is not None:
            self._require_whole(loader._mapped)
        if step >= plan.last_step:
            self.close()
            raise StopIteration
        tally = loader._tally
        request_ns = clock.monotonic_ns()
        tally.waiting(request_ns)
        try:
            self._flow.start_once()
            slot = self._flow.take(step)
        except Exception:
            self.close()
            raise
        batch = slot.batch
        batch.request_ns, batch.ready_ns = request_ns, clock.monotonic_ns()
        tally.waited(step, request_ns, batch.ready_ns)
        if step == plan.first_step:
            tally.first_batch.record(batch.ready_ns - request_ns)
        self._next_step = step + 1
        loader._delivered(batch, self._next_step)
        return batch

    def _require_whole(self, mapped: MappedFiles) -> None:
        """Raise, and end the pass, when a sample that was handed over has lost its file meanwhile."""
        try:
            mapped.check()
        except ShortReadError:
            self.close()
            raise

    def close(self) -> None:
        """End the pass and its threads."""
        if self._open:
            self._open = False
            self._end.detach()
            self._flow.close()
