"""Making and reading small files in memory, for the tests beside."""

from functools import partial

import numpy as np

from stoker.formats.api import SampleSpec, reading_options
from stoker.formats.ranges import MemorySource
from stoker.testing.format_contract import extent_data


def content(spec, index):
    """Return reproducible samples: sample `index` of a spec."""
    chance = np.random.default_rng(1000 + index)
    raw = chance.integers(0, 256, spec.sample_bytes, dtype=np.uint8)
    if np.dtype(spec.dtype).kind == "f":
        return chance.random(spec.shape).astype(spec.dtype)
    return raw.view(spec.dtype).reshape(spec.shape)


def encode(made, shape, dtype="uint8", samples=1, **options):
    """Return (checked spec, file bytes)."""
    spec = made.check_spec(SampleSpec(shape, dtype, samples, options))
    return spec, b"".join(bytes(chunk) for chunk in made.encode(spec, partial(content, spec)))


def decode(made, data, options=None, side_files=None):
    """Return the blocks of a whole file."""
    source = MemorySource(data, side_files)
    layout = made.layout(source, options or {})
    return [made.decode(extent_data(source, extent), extent, layout) for extent in layout.extents]


def decode_one(made, data, options=None, side_files=None):
    """Return the only block of a file."""
    blocks = decode(made, data, options, side_files)
    assert len(blocks) == 1
    return blocks[0]


def told(spec):
    """Return what a reader of a file with this spec is told."""
    return reading_options(spec)


class CountingSource(MemorySource):
    """A source that remembers what was read."""

    def __init__(self, data, side_files=None):
        super().__init__(data, side_files)
        self.reads = []

    def read(self, offset_bytes, length_bytes):
        self.reads.append((offset_bytes, length_bytes))
        return super().read(offset_bytes, length_bytes)

    @property
    def read_bytes(self):
        return sum(length for _, length in self.reads)
