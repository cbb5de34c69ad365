"""Under a real seccomp filter that denies io_uring everything reads and writes on, and doctor says why."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.kernels.native import native_kernels
from stoker.kernels.reading import engine_facts

DENIAL = Path(__file__).with_name("seccomp_denial.py")
SCRIPT = """
import sys
import numpy as np
from stoker.kernels.reading import engine_facts, open_read_engine
from stoker.kernels.write_engines import open_write_engine
from stoker.storage.opening import open_store
assert "io_uring" not in engine_facts().kinds, engine_facts()
print(open_write_engine().kind, open_read_engine().kind)
store = open_store("file://" + sys.argv[1])
data = np.random.default_rng(3).integers(0, 256, 3_000_000, np.uint8)
store.put("there", memoryview(data))
found = np.zeros_like(data)
with store.open_read("there") as reader:
    reader.read_into(memoryview(found))
assert (found == data).all()
"""


def denied(number: int, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DENIAL), str(number), *words], capture_output=True, text=True, check=False, timeout=60
    )


def need_io_uring() -> None:
    if native_kernels() is None:
        pytest.skip("no native kernels: there is no io_uring engine to deny")
    if reason := engine_facts().io_uring_denied:
        pytest.skip(f"io_uring is denied here already: {reason}")
    if denied(errno.EPERM, "true").returncode:
        pytest.skip("seccomp filters are refused here")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_everything_works_without_io_uring(tmp_path: Path, number: int) -> None:
    need_io_uring()
    done = denied(number, sys.executable, "-c", SCRIPT, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["threads", "threads"]


def test_doctor_tells_the_denial() -> None:
    need_io_uring()
    done = denied(errno.EPERM, str(Path(sys.executable).with_name("stoker")), "doctor")
    assert "io_uring: the kernel denies it" in done.stdout, done.stdout + done.stderr
