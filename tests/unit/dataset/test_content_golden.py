"""The bytes of a dataset's content are those of the version that first made them, by whichever kernel."""

import numpy as np
import pytest
import xxhash

from stoker.core.plan import DatasetSpec
from stoker.formats.api import SampleSpec
from stoker.kernels import filling
from stoker.kernels.native import CPU_LEVELS, forced_cpu_level, native_kernels
from stoker.loader.dataset.content import content_source, fill

# seed, stream, offset, bytes, compress ratio, duplicate ratio, bytes past an address divisible by 64; XXH3-64
RANGES = [
    ((1, 0, 0, 4096, 1.0, 0.0, 0), "2c44e9fe6266a43b"),
    ((1, 0, 0, 262144, 1.0, 0.0, 0), "7b4279eeff05849f"),
    ((1, 0, 262144, 1048576, 1.0, 0.0, 16), "2652aa24ccfbb6bb"),
    ((7, 3, 1, 8191, 1.0, 0.0, 0), "e36b8b9c90368088"),
    ((7, 3, 4095, 2, 1.0, 0.0, 3), "76d4bbe5441c6af2"),
    ((7, 3, 4097, 100003, 1.0, 0.0, 5), "5dde96aff843ea6b"),
    ((7, 3, 1000003, 3000001, 1.0, 0.0, 1), "7891937555761233"),
    ((9223372036854775807, 1099511627776, 1099511627789, 70000, 1.0, 0.0, 7), "995bfbbe3ec70a06"),
    ((0, 1, 4503599627370487, 20000, 1.3, 0.4, 0), "54aa38349fd1134a"),
    ((5, 9, 0, 1048576, 1.5, 0.0, 0), "a67cedab0e8e0a95"),
    ((5, 9, 0, 1048576, 2.0, 0.0, 0), "405e3f8da095f525"),
    ((5, 9, 77, 1048576, 3.0, 0.0, 2), "95e74db439c70a32"),
    ((5, 9, 12288, 1048576, 4.0, 0.0, 32), "aecdf4f66f0724f8"),
    ((5, 9, 8, 1048576, 64.0, 0.0, 8), "5faecd30377ac8b6"),
    ((11, 4, 0, 4194304, 1.0, 0.1, 0), "6c75f82f849ed146"),
    ((11, 4, 327689, 4194304, 1.0, 0.25, 0), "74a3ebaa48301874"),
    ((11, 4, 123, 4194304, 2.0, 0.5, 4), "aa285e86dd1ab32f"),
    ((11, 4, 0, 1048576, 1.0, 1.0, 0), "cbcfe5ad8c4d9f85"),
    ((11, 5, 31, 1048576, 64.0, 1.0, 31), "9611f9c2d1f6e234"),
    ((3, 2, 10, 0, 1.0, 0.0, 0), "2d06800538d394c2"),
    ((3, 2, 10, 1, 1.0, 0.0, 0), "12eee1c500b74ed2"),
    ((3, 2, 2047, 31, 2.0, 0.0, 0), "d014eac60b3e3dee"),
    ((3, 2, 2030, 33, 2.0, 0.0, 1), "eca8a5b242447d69"),
    ((3, 2, 2001, 64, 2.0, 0.0, 9), "232100e83fd6d031"),
]

# element type, shape, samples, compress ratio, duplicate ratio; XXH3-64 of all samples
SAMPLES = [
    (("uint8", (50, 50), 9, 2.0, 0.0), "d396d8cdba80747a"),
    (("uint8", (1000, 1000), 3, 1.0, 0.3), "56d73c76cd786309"),
    (("bool", (33, 7), 5, 1.0, 0.0), "7ff78ceeebc09b59"),
    (("float16", (3, 5), 77, 1.0, 0.0), "c8d06cc1574ee892"),
    ((">f2", (3, 5), 77, 1.0, 0.0), "ab0bb48147df45a9"),
    (("float32", (111, 3), 40, 1.5, 0.2), "a1aeda746bcab6d1"),
    ((">f4", (111, 3), 40, 1.5, 0.2), "432c8f055d499477"),
    (("float64", (7,), 3001, 1.0, 0.0), "769c8973737ff318"),
    ((">f8", (700, 11), 31, 1.0, 0.5), "27f516719002c46b"),
    (("complex64", (13, 3), 200, 2.0, 0.0), "325c00adda38bfa9"),
    (("complex128", (5,), 2000, 1.0, 0.0), "c222cf6d82a2dc08"),
    ((">c8", (13, 3), 200, 2.0, 0.0), "6442c56c634a8454"),
    (("int16", (37,), 100, 1.0, 0.0), "3f7bbef727e314c7"),
    (("float32", (1024, 1024), 2, 2.0, 0.25), "d69a29265c3312f0"),
]


@pytest.fixture(params=["plain", *CPU_LEVELS])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """The plain twin, then the native kernel at every CPU level."""
    if request.param == "plain":
        monkeypatch.setattr(filling, "native_kernels", lambda: None)
        yield
        return
    if native_kernels() is None:
        pytest.skip("the native kernels are not installed")
    with forced_cpu_level(request.param) as level:
        if level != request.param:
            pytest.skip(f"this processor offers {level}, not {request.param}")
        yield


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("asked", "digest"), RANGES)
def test_a_range_has_the_bytes_it_always_had(asked: tuple, digest: str) -> None:
    seed, stream, offset, size_bytes, compress, duplicate, shift = asked
    room = np.full(size_bytes + 128, 0xA5, np.uint8)
    start = -room.ctypes.data % 64 + shift
    out = room[start : start + size_bytes]
    fill(
        out.data,
        seed=seed,
        stream=stream,
        offset_bytes=offset,
        compress_ratio=compress,
        duplicate_ratio=duplicate,
    )
    assert xxhash.xxh3_64_hexdigest(out) == digest
    assert (room[:start] == 0xA5).all()
    assert (room[start + size_bytes :] == 0xA5).all()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(("asked", "digest"), SAMPLES)
def test_samples_have_the_bytes_they_always_had(asked: tuple, digest: str) -> None:
    dtype, shape, samples, compress, duplicate = asked
    spec = DatasetSpec("raw", samples, compress_ratio=compress, duplicate_ratio=duplicate)
    source = content_source(spec, 6, SampleSpec(shape, dtype, samples))
    found = xxhash.xxh3_64()
    for index in range(samples):
        array = source(index)
        assert array.flags.aligned
        found.update(np.ascontiguousarray(array).view(np.uint8))
    assert found.hexdigest() == digest
