"""The pool of code images: one copy for each digest, however many processes take it."""

import json
import multiprocessing
import shutil
import subprocess
from pathlib import Path

import pytest

import stoker
from stoker.bench.report.submission import capture_image, check_image
from stoker.bench.rules.mlperf.code_images import image_digest
from stoker.core.errors import CorruptError


def test_image_holds_the_code_and_its_digest(tmp_path: Path) -> None:
    name = capture_image(tmp_path)
    image = tmp_path / "code-images" / name
    told = json.loads((image / ".code-hash.json").read_text())
    assert name == f"code-{told['hash'][:8]}" and len(told["hash"]) == 32
    assert told["algorithm"] == "md5" and told["mlpstorage_version"] == stoker.__version__
    assert (tmp_path / "code-images/.mlps-image-pool").is_file()
    assert (image / "cli/main.py").read_bytes() == (Path(stoker.__file__).parent / "cli/main.py").read_bytes()
    hidden = [path for path in image.rglob("*") if path.name.startswith(".") and path.name != ".code-hash.json"]
    assert hidden == [] and not list(image.rglob("*.pyc")) and not list(image.rglob("__pycache__"))


def test_digest_is_what_other_tools_count(tmp_path: Path) -> None:
    image = tmp_path / "code-images" / capture_image(tmp_path)
    line = "find * -type f | LC_ALL=C sort | xargs md5sum | md5sum"
    done = subprocess.run(["bash", "-c", line], cwd=image, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == json.loads((image / ".code-hash.json").read_text())["hash"]


def test_second_capture_keeps_the_first(tmp_path: Path) -> None:
    image = tmp_path / "code-images" / capture_image(tmp_path)
    before = (image / ".code-hash.json").read_bytes()
    assert capture_image(tmp_path) == image.name
    assert (image / ".code-hash.json").read_bytes() == before


def test_image_that_was_edited_is_refused(tmp_path: Path) -> None:
    image = tmp_path / "code-images" / capture_image(tmp_path)
    (image / "cli/main.py").write_text("print('another tool')\n")
    with pytest.raises(CorruptError, match="does not hold what its digest says"):
        capture_image(tmp_path)
    (image / ".code-hash.json").unlink()
    with pytest.raises(CorruptError, match="without a readable digest"):
        check_image(image)


def test_many_processes_make_one_image(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        names = pool.map(capture_image, [tmp_path] * 4)
    assert len(set(names)) == 1
    assert sorted(path.name for path in (tmp_path / "code-images").iterdir()) == [".mlps-image-pool", names[0]]


@pytest.mark.parametrize(
    "name", ["tests/a.py", "test/a.py", ".hidden", ".git/a", "a.pyc", "x.egg-info/a", "b/__pycache__/c"]
)
def test_what_is_no_code_does_not_count(tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/code.py").write_text("1\n")
    before = image_digest(tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("2\n")
    assert image_digest(tmp_path) == before
    shutil.copyfile(tmp_path / "a/code.py", tmp_path / "a/more.py")
    assert image_digest(tmp_path) != before
