"""A wheel has the native kernels where there is a compiler; without one it is whole, and tells what it lacks."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
BUILD_SECONDS = 280
DOCTOR = "import sys; from stoker.cli.main import main; sys.argv = ['stoker', 'doctor', '--json']; sys.exit(main())"
FILL = """
import xxhash
from stoker.loader.dataset.content import fill
out = bytearray(100_000)
fill(memoryview(out), seed=1, stream=2, offset_bytes=3)
print(xxhash.xxh3_64_hexdigest(out))
"""

EXPECTED_FILL = "13fdc86c75d72136"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_SECONDS + 60)]


class Wheel:
    """A wheel of this tree, unpacked where only this class imports it from."""

    def __init__(self, place: Path, *options: str, **variables: str) -> None:
        settings = [f"build-dir={place / 'build'}", *options]
        words = [word for setting in settings for word in ("-C", setting)]
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
        done = subprocess.run(
            [*command, *words, "--wheel-dir", str(place), str(REPO)],
            env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | variables,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        (path,) = place.glob("stoker-*.whl")
        with zipfile.ZipFile(path) as archive:
            self.names = archive.namelist()
            archive.extractall(place / "unpacked")
        self._unpacked = place / "unpacked"

    @property
    def has_native(self) -> bool:
        """Whether the module is in the wheel."""
        return any(name.startswith("stoker/kernels/_native.") and not name.endswith(".pyi") for name in self.names)

    def run(self, code: str) -> str:
        """Run `code` with this wheel and the packages installed here, but not the tree; return its output."""
        paths = [
            str(self._unpacked),
            *(path for path in sys.path if path and not Path(path).is_relative_to(REPO / "src")),
        ]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("STOKER_")}
        # Without site, so that an editable installation does not step in.
        done = subprocess.run(
            [sys.executable, "-S", "-c", f"import stoker; print(stoker.__file__)\n{code}"],
            env=kept | {"PYTHONPATH": os.pathsep.join(paths)},
            cwd=self._unpacked,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        where, _, told = done.stdout.partition("\n")
        assert Path(where).is_relative_to(self._unpacked), where
        return told

    def kernels(self) -> dict[str, Any]:
        """The doctor's line about the kernels."""
        checks = json.loads(self.run(DOCTOR))["checks"]
        line: dict[str, Any] = next(check for check in checks if check["name"] == "kernels")
        return line


@pytest.mark.parametrize(
    ("options", "compiler"),
    [((), "/nonexistent/c++"), ((), shutil.which("false")), (("cmake.define.STOKER_NATIVE=OFF",), "c++")],
    ids=["no compiler", "a compiler that fails", "switched off"],
)
def test_a_wheel_without_native_kernels_is_whole(tmp_path: Path, options: tuple[str, ...], compiler: str) -> None:
    wheel = Wheel(tmp_path, *options, CXX=compiler)
    assert not wheel.has_native
    line = wheel.kernels()
    assert line["status"] == "warn"
    assert "plain twins" in line["observed"]
    assert "C++20 compiler" in line["remedy"]
    assert wheel.run(FILL).strip() == EXPECTED_FILL


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler is installed")
def test_a_wheel_built_with_a_compiler_has_them(tmp_path: Path) -> None:
    wheel = Wheel(tmp_path)
    assert wheel.has_native
    line = wheel.kernels()
    assert (line["status"], line["remedy"]) == ("ok", "")
    assert wheel.run(FILL).strip() == EXPECTED_FILL
