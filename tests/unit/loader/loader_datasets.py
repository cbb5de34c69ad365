"""Small datasets of every format whose samples say which they are."""

from typing import Any

import numpy as np
import xxhash

from stoker.formats.api import FORMATS, SampleSpec
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store


def sample_content(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Sample `number`: its number in the first two bytes, a pattern of its own in the rest."""
    array = np.full(shape, number % 251, np.uint8)
    array.reshape(-1)[:2] = number >> 8, number & 255
    return array


def build(
    store: Store,
    name: str,
    samples: list[int],
    shape: tuple[int, ...] = (64,),
    options: dict[str, Any] | None = None,
    shapes: list[tuple[int, ...]] | None = None,
) -> Manifest:
    """Write one file for each entry of `samples` and return their manifest."""
    data_format = FORMATS.load(name)
    keys, sizes, sums, first = [], [], [], 0
    for number, count in enumerate(samples):
        form = shapes[number] if shapes else shape
        spec = data_format.check_spec(SampleSpec(form, "uint8", count, options or {}))
        start = first
        chunks = data_format.encode(spec, lambda index, start=start, form=form: sample_content(start + index, form))
        data = b"".join(chunks)
        key = f"train/f{number:03d}.{data_format.extension}"
        store.put(key, data)
        for suffix, side in data_format.side_files(spec).items():
            store.put(data_format.side_key(key, suffix), side)
        keys.append(key)
        sizes.append(len(data))
        sums.append(xxhash.xxh3_64_intdigest(data))
        first += count
    told = dict(options or {})
    if name in ("raw", "csv", "synthetic", "indexed_binary"):
        told |= {"shape": shape, "dtype": "uint8"}
    return Manifest(
        name,
        keys,
        np.array(sizes, np.int64),
        np.array(samples, np.int64),
        np.array(sums, np.uint64),
        options=told,
    )


def is_sample(array: np.ndarray, number: int) -> bool:
    return np.array_equal(array.reshape(-1), sample_content(number, array.shape).reshape(-1))
