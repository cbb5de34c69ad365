"""What a child says is kept whole and passed on; a system is described once and held against every later host."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.bench.report.submission import describe_system
from stoker.bench.run.mlperf import system
from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.bench.run.mlperf.prepare import Prepared, prepare
from stoker.bench.run.mlperf.resolving import Place, resolve_invocation
from stoker.bench.run.mlperf.results_dir import initialise
from stoker.bench.run.mlperf.tee import Tee


def test_all_that_a_child_says_is_in_the_file_and_goes_on(tmp_path: Path) -> None:
    onward = io.BytesIO()
    with Tee(tmp_path / "log", onward) as tee:
        code = "import sys\nfor n in range(20000): print(n)"
        subprocess.run([sys.executable, "-c", code], stdout=tee.end, check=True)
    expected = "".join(f"{n}\n" for n in range(20000)).encode()
    assert (tmp_path / "log").read_bytes() == onward.getvalue() == expected


def test_a_reader_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    class Gone(io.BytesIO):
        def write(self, data: object) -> int:
            raise BrokenPipeError

    with Tee(tmp_path / "log", Gone()) as tee:
        os.write(tee.end, b"one\n")
        os.write(tee.end, b"two\n")
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this kernel has no /dev/full")
def test_a_full_disk_does_not_stop_the_child(tmp_path: Path) -> None:
    onward = io.BytesIO()
    with Tee(Path("/dev/full"), onward) as tee:
        done = subprocess.run([sys.executable, "-c", "print('x' * 500000)"], stdout=tee.end, timeout=20)
        assert done.returncode == 0
    assert len(onward.getvalue()) == 500001
    assert tee.error is not None


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    results = initialise(tmp_path / "results", "acme")
    flags = {"results_dir": str(results.root), "systemname": "sysA", "data_dir": "/d", "accelerator_type": "b200"}
    return prepare(resolve_invocation(Place("open", "training", "unet3d", "run", "file"), flags, {}, strict=False), {})


def test_a_host_that_is_the_described_one_goes_on(prepared: Prepared) -> None:
    told: list[str] = []
    system.require_described(prepared, told.append)  # no description yet
    describe_system(system.description_path(prepared), [system.this_host()])
    system.require_described(prepared, told.append)
    assert told == []


def test_another_host_is_refused_with_the_difference(prepared: Prepared) -> None:
    path = system.description_path(prepared)
    describe_system(path, [system.this_host()])
    text = path.read_text()
    assert "quantity: 1" in text
    path.write_text(text.replace("quantity: 1", "quantity: 2", 1))
    with pytest.raises(ConfigurationError, match=r"E404(.|\n)*-.*quantity: 2(.|\n)*\+.*quantity: 1"):
        system.require_described(prepared, lambda _: None)


def test_a_description_that_cannot_be_read_is_told(prepared: Prepared) -> None:
    path = system.description_path(prepared)
    path.parent.mkdir(parents=True)
    path.write_text("a: [\n")
    with pytest.raises(ConfigurationError, match="E104"):
        system.require_described(prepared, lambda _: None)
