"""What the tests of kernels share."""

from collections.abc import Iterator
from typing import Any

import pytest

from stoker.kernels.native import CPU_LEVELS, forced_cpu_level, native_kernels


@pytest.fixture(params=["plain", *CPU_LEVELS])
def kernel_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make the face given to it run as the plain twin, then as the native kernel at each CPU level there is."""
    if request.param == "plain":
        yield lambda face: monkeypatch.setattr(face, "native_kernels", lambda: None)
        return
    if native_kernels() is None:
        pytest.skip("the native kernels are not installed")
    with forced_cpu_level(request.param) as level:
        if level != request.param:
            pytest.skip(f"this processor offers {level}, not {request.param}")
        yield lambda face: None
