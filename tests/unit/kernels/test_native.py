"""Which kernels run: what the variables choose, what they refuse, and that a compiler means native ones."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from stoker.kernels.native import CPU_LEVELS, REMEDY, forced_cpu_level, kernel_status, native_kernels

TELL = """
import json, msgspec
from stoker.core.errors import StokerError
from stoker.kernels.native import kernel_status
try:
    print(json.dumps(msgspec.to_builtins(kernel_status())))
except StokerError as error:
    print(json.dumps({"error": type(error).__name__, "told": str(error)}))
"""
HIDE = "import sys; sys.modules['stoker.kernels._native'] = None\n"
NO_NATIVE = native_kernels() is None


def status_under(code: str = TELL, **variables: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("STOKER_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=kept | variables, capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_compiler_means_native_kernels() -> None:
    """Without this, a broken build would leave every other test to the plain twins and nobody would notice."""
    chosen = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([chosen] if chosen else ["c++", "g++", "clang++"])):
        pytest.skip("no C++ compiler is installed: the plain twins are right here")
    status = status_under()
    assert status["kind"] == "native", f"the native kernels were not built or do not load; {REMEDY}: {status}"


def test_plain_twins_can_be_chosen() -> None:
    status = status_under(STOKER_KERNELS="plain")
    assert (status["kind"], status["reason"]) == ("plain", "STOKER_KERNELS=plain")
    assert status["remedy"] == "unset STOKER_KERNELS"


@pytest.mark.skipif(NO_NATIVE, reason="the native kernels are not installed")
@pytest.mark.parametrize("choice", ["native", "auto"])
def test_native_kernels_can_be_chosen(choice: str) -> None:
    assert status_under(STOKER_KERNELS=choice)["kind"] == "native"


def test_native_kernels_that_are_missing_are_told_with_the_remedy() -> None:
    status = status_under(HIDE + TELL)
    assert (status["kind"], status["remedy"]) == ("plain", REMEDY)
    assert "without a C++ compiler" in status["reason"]
    insisted = status_under(HIDE + TELL, STOKER_KERNELS="native")
    assert insisted["error"] == "UnavailableError"
    assert REMEDY in insisted["told"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [("STOKER_KERNELS", "fast"), ("STOKER_KERNELS", ""), ("STOKER_CPU_LEVEL", "avx9"), ("STOKER_CPU_LEVEL", "AVX2")],
)
def test_a_variable_with_an_unknown_value_is_refused(variable: str, value: str) -> None:
    refused = status_under(**{variable: value})
    assert refused["error"] == "UsageError"
    assert variable in refused["told"]


@pytest.mark.skipif(NO_NATIVE, reason="the native kernels are not installed")
@pytest.mark.parametrize("level", CPU_LEVELS)
def test_the_cpu_level_is_honoured(level: str) -> None:
    with forced_cpu_level(level) as offered:
        if offered != level:
            pytest.skip(f"this processor offers {offered}, not {level}")
        assert kernel_status().cpu_level == level
    assert status_under(STOKER_CPU_LEVEL=level)["cpu_level"] == level


@pytest.mark.skipif(NO_NATIVE, reason="the native kernels are not installed")
def test_a_forced_level_ends_with_its_block() -> None:
    before = kernel_status().cpu_level
    with pytest.raises(KeyError), forced_cpu_level("scalar"):
        assert kernel_status().cpu_level == "scalar"
        raise KeyError
    assert kernel_status().cpu_level == before
