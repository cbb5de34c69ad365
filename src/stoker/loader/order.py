"""The order in which an epoch visits the samples: pure, counter-based, with random access and no list in memory.

A sample's *number* counts through the manifest's files; a *position* counts through the epoch. `EpochOrder.at` maps
positions to numbers. Shuffling is a keyed permutation (`stoker.kernels.permuting`): deterministic and spread out, not
secret.

Where several samples can only be read together (a file of npz, a row group of Parquet) the permutation moves such
windows as a whole and shuffles inside each, so that a window is read about once an epoch.
"""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.core.seed import derive
from stoker.kernels.permuting import GOLDEN, mix, permute

Int64s = NDArray[np.int64]

ORDERS: Final = ("shuffled", "sequential", "dlio")
_CHUNK: Final = 1 << 14
_U: Final = np.uint64
_DIGEST_SALT: Final = _U(0x5354_4F4B_4552_0001)


def digest(sample_ids: Int64s) -> int:
    """Return the XOR of a 64-bit hash of every sample number: it does not depend on the order, and joins by XOR.

    Together with the number of samples it proves that each was visited once: a sample left out or visited twice
    changes the count, or the digest with probability 1 - 2^-64.
    """
    total = 0
    for start in range(0, len(sample_ids), _CHUNK):
        words = sample_ids[start : start + _CHUNK].astype(np.uint64)
        total ^= int(np.bitwise_xor.reduce(mix(mix(words + _DIGEST_SALT) + _U(GOLDEN))))
    return total


class SampleSpace:
    """Which file holds which sample numbers. O(files) memory, none when all files hold equally many."""

    def __init__(self, samples: Int64s) -> None:
        """Take the number of samples of each file."""
        self.files = len(samples)
        self.total = int(samples.sum())
        self.largest = int(samples.max()) if len(samples) else 0
        self.uniform = self.total == self.largest * self.files
        self._samples = samples
        self._starts: Int64s | None = None
        if not self.uniform:
            self._starts = np.concatenate(([0], np.cumsum(samples)[:-1])).astype(np.int64)

    def locate(self, sample_ids: Int64s) -> tuple[Int64s, Int64s]:
        """Return each sample's file and its index within the file."""
        if self._starts is None:
            return _divided(sample_ids, max(self.largest, 1))
        files = np.searchsorted(self._starts, sample_ids, side="right").astype(np.int64) - 1
        return files, sample_ids - self._starts[files]

    def counts(self, files: Int64s) -> Int64s:
        """Return how many samples each of the files holds."""
        return self._samples[files].astype(np.int64, copy=False)

    def starts(self, files: Int64s) -> Int64s:
        """Return the number of each file's first sample."""
        return files * self.largest if self._starts is None else self._starts[files]


class OrderRule(msgspec.Struct, frozen=True):
    """What decides every epoch's order: `window_samples` is 0 where each sample can be read by itself."""

    order: str = "shuffled"
    seed: int = 123
    seed_change_epoch: bool = True
    window_samples: int = 0

    def key(self, epoch: int) -> int:
        """Return the key of an epoch; without `seed_change_epoch` all epochs share one."""
        return derive(self.seed, "order", epoch if self.seed_change_epoch else 0)


class EpochOrder:
    """One epoch's order over all samples. Safe from many threads."""

    def __init__(self, space: SampleSpace, rule: OrderRule, epoch: int) -> None:
        self._space = space
        self._shuffled = rule.order == "shuffled"
        self._window = min(rule.window_samples, space.largest)
        self._key = rule.key(epoch)
        self._windows_per_file = -(-space.largest // self._window) + 1 if self._window else 0
        self._slots: tuple[Int64s, Int64s] | None = None

    def at(self, positions: Int64s) -> tuple[Int64s, Int64s | None]:
        """Return the sample number at each position, and the number of the window it stands in.

        Windows are None where samples are read one by one. Equal window numbers stand side by side in an epoch.
        """
        if not self._window:
            ids = permute(positions, self._space.total, self._key) if self._shuffled else positions
            return ids, None
        if not self._shuffled:
            files, offsets = self._space.locate(positions)
            return positions, files * self._windows_per_file + offsets // self._window
        slots, files, offsets = self._file_at(positions)
        ordinal = offsets // self._window
        windows = slots * self._windows_per_file + ordinal
        return self._inside(files, offsets, ordinal, _heads(windows)), windows

    def _file_at(self, positions: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """Return, for each position, the file's place in the epoch, the file, and the offset within its turn."""
        space = self._space
        if space.uniform:
            slots, offsets = _divided(positions, space.largest)
            heads, counts = _heads(slots)
            return slots, np.repeat(permute(slots[heads], space.files, self._key), counts), offsets
        if self._slots is None:
            files = permute(np.arange(space.files, dtype=np.int64), space.files, self._key)
            ends = np.cumsum(space.counts(files))
            self._slots = (files, ends)
        order, ends = self._slots
        slots = np.searchsorted(ends, positions, side="right").astype(np.int64)
        files = order[slots]
        return slots, files, positions - (ends[slots] - space.counts(files))

    def _inside(self, files: Int64s, offsets: Int64s, ordinal: Int64s, stretches: tuple[Int64s, Int64s]) -> Int64s:
        """Return the sample numbers: whole windows change places within their file, a shorter last one stays last.

        What is the same for a stretch of samples of one window is worked out once.
        """
        window = self._window
        heads, repeats = stretches
        own_files, own_ordinal = files[heads], ordinal[heads]
        counts = self._space.counts(own_files)
        whole = counts // window
        last = own_ordinal >= whole
        keys = mix(own_files.astype(np.uint64) * _U(GOLDEN) + _U(self._key))
        moved = np.where(last, whole, permute(np.where(last, 0, own_ordinal), np.maximum(whole, 1), keys))
        sizes = np.where(last, counts - whole * window, window)
        inner_keys = mix(keys + moved.astype(np.uint64) + _U(1))
        inner = permute(offsets - ordinal * window, sizes, inner_keys, repeats)
        ids: Int64s = np.repeat(self._space.starts(own_files) + moved * window, repeats) + inner
        return ids


def _divided(values: Int64s, divisor: int) -> tuple[Int64s, Int64s]:
    """Return quotients and rests of numbers that are not negative; half of the time of divmod."""
    quotients: Int64s = values // divisor
    return quotients, values - quotients * divisor


def _heads(values: Int64s) -> tuple[Int64s, Int64s]:
    """Return where each stretch of equal values begins, and how long it is."""
    if len(values) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    heads = np.concatenate(([0], np.flatnonzero(values[1:] != values[:-1]) + 1))
    return heads, np.diff(heads, append=len(values))


def visited_digest(order: EpochOrder, positions: Any) -> int:
    """Return the digest of the samples at an iterable of position arrays."""
    total = 0
    for piece in positions:
        total ^= digest(order.at(piece)[0])
    return total
