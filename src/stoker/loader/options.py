"""What a loader can be told."""

import msgspec
import psutil

from stoker.core.errors import UsageError
from stoker.core.plan import Spread
from stoker.core.units import MiB
from stoker.loader.manifest import Manifest
from stoker.loader.order import ORDERS
from stoker.loader.spread import draw_seconds
from stoker.loader.tuning_bounds import PINNED_MOST, REQUEST_UNIT_BYTES

COLLATIONS = ("views", "stack")
_IN_FLIGHT_BYTES_MIN = 64 * MiB
_DEPTH_MAX = PINNED_MOST["queue_depth"]
_REQUEST_MAX = PINNED_MOST["request_bytes"]
_MEMORY_SHARE = 8


class LoaderOptions(msgspec.Struct, frozen=True):
    """How batches are made. Counts are per loader, that is per rank.

    batch_size, decode_threads      `decode_threads` 0: whoever reads a sample decodes it
    read_threads, queue_depth, request_bytes    readers, how many requests each keeps under way, and the largest of
                them; 0: chosen while reading, to suit the target (see `Loader.tuning`)
    cpus        this loader's share of the host's, which bounds what is tried; 0: all that the process may run on
    prefetch_batches    batches being made beyond those asked for; 0: work begins when a batch is asked for. Where
                        several samples are read as one, at least as many such reads as readers are kept under way
    order       `shuffled`; `sequential`: ascending, the ranks take turns; `dlio`: ascending within each rank's
                contiguous share, as DLIO reads with PyTorch. Files of which samples cannot be read one by one are
                dealt whole, so for them `sequential` is the same as `dlio`
    seed, seed_change_epoch     decide the shuffled order; without the latter all epochs share it
    collate     `views`: a list of arrays that look into the read buffers; `stack`: one array, copied once
    verify      ratio of files whose XXH3-64 is compared with the manifest's, drawn anew each epoch. Files of which
                parts are read are read once more, whole, by the rank that visits their first sample
    preprocess  seconds each sample is held in the stage `transform` by the thread that decodes it, one after the
                other. It is slept, as DLIO does: a busy loop would take from the readers the CPU that preprocessing
                on a real host has beside them
    in_flight_bytes_max     bytes read or being read but not yet handed over; 0: chosen from batch and memory
    join_bytes  neighbouring samples of a file that lie back to back (TFRecord, raw, indexed) are read together up to
                this many bytes, and the shuffle moves them as one, as sequential readers of these formats do; 0 reads
                and shuffles them one by one. `sequential` never joins
    map_bytes   where at least so many bytes of a local file are read as one and all lie in the page cache, they are
                mapped instead of copied; 0: never. Needs native kernels. A sample that is written into is the holder's
                own as ever; a file that is changed while its samples are held changes them, and one that shrinks ends
                the epoch with an error
    steps_max   cap of the steps of an epoch, 0: none; nothing beyond it is read ahead
    capture_order   keep the sample numbers of the epoch's batches in `Loader.captured`
    """

    batch_size: int
    read_threads: int = 0
    queue_depth: int = 0
    cpus: int = 0
    request_bytes: int = 0
    decode_threads: int = 1
    prefetch_batches: int = 2
    order: str = "shuffled"
    seed: int = 123
    seed_change_epoch: bool = True
    collate: str = "views"
    verify: float = 0.0
    preprocess: Spread = Spread()
    in_flight_bytes_max: int = 0
    join_bytes: int = MiB
    map_bytes: int = 4 * MiB
    steps_max: int = 0
    capture_order: bool = False

    def check(self, manifest: Manifest) -> None:
        """Raise UsageError for a value that cannot be, or that this dataset gives no means for."""
        rules = [
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("read_threads", 0 <= self.read_threads <= 1024, "0 to 1024"),
            ("cpus", self.cpus >= 0, "at least 0"),
            ("queue_depth", 0 <= self.queue_depth <= _DEPTH_MAX, f"0 to {_DEPTH_MAX}"),
            ("request_bytes", self._request_fits(), f"0 or a multiple of {REQUEST_UNIT_BYTES}, at most {_REQUEST_MAX}"),
            ("decode_threads", 0 <= self.decode_threads <= 1024, "0 to 1024"),
            ("prefetch_batches", self.prefetch_batches >= 0, "at least 0"),
            ("order", self.order in ORDERS, " or ".join(ORDERS)),
            ("collate", self.collate in COLLATIONS, " or ".join(COLLATIONS)),
            ("verify", 0.0 <= self.verify <= 1.0, "a ratio of 0 to 1"),
            ("in_flight_bytes_max", self.in_flight_bytes_max >= 0, "at least 0"),
            ("join_bytes", self.join_bytes >= 0, "at least 0"),
            ("map_bytes", self.map_bytes >= 0, "at least 0"),
            ("steps_max", self.steps_max >= 0, "at least 0"),
        ]
        for name, good, expected in rules:
            if not good:
                raise UsageError(
                    "loader option is no good", where=name, expected=expected, got=repr(getattr(self, name))
                )
        draw_seconds(self.preprocess, 0, 1)
        if self.verify and manifest.checksums is None:
            raise UsageError(
                "the manifest holds no checksums to verify against",
                expected="a checksum for each file",
                remedy="generate the dataset again, or set verify to 0",
            )

    def _request_fits(self) -> bool:
        return 0 <= self.request_bytes <= _REQUEST_MAX and self.request_bytes % REQUEST_UNIT_BYTES == 0


def in_flight_bytes(options: LoaderOptions, manifest: Manifest, unit_samples: int, readers: int) -> int:
    """Return the bound of bytes in flight: what was told, else what prefetching needs, within an eighth of free memory.

    `unit_samples` is how many samples are read as one. Readers go on for one batch even when the bound is smaller.
    """
    if options.in_flight_bytes_max:
        return options.in_flight_bytes_max
    sample_bytes = manifest.total_bytes / max(manifest.total_samples, 1)
    batches = (options.prefetch_batches + 2) * options.batch_size
    units = (readers + 1) * max(unit_samples, 1)
    wanted = int(sample_bytes * max(batches, units) * 1.25)
    return max(_IN_FLIGHT_BYTES_MIN, min(wanted, psutil.virtual_memory().available // _MEMORY_SHARE))
