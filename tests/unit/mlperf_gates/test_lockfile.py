"""Installed packages against a lock, and locks made by the resolver."""

import os
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from stoker.bench.run.lock_making import without_registries
from stoker.bench.run.lockfile import (
    applies,
    generate_lockfile,
    installed_versions,
    not_as_locked,
    parse_lock,
    require_locked,
    same_version,
    verify_lockfile,
)
from stoker.core.errors import CorruptError, MissingExtraError, NotFoundError, PreflightError, StokerError, UsageError


def lock(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(text)
    return path


def test_what_is_installed_matches(tmp_path: Path) -> None:
    names = ("msgspec", "numpy", "click")
    path = lock(tmp_path, "\n".join(f"{name}=={version(name)} \\\n    --hash=sha256:00" for name in names))
    report = require_locked(path)
    assert report.valid
    assert (report.total_packages, report.matched, report.skipped) == (3, 3, 0)
    assert report.sentence() == "3 of 3 packages as locked"


def test_each_state_is_told_for_each_package(tmp_path: Path) -> None:
    path = lock(
        tmp_path,
        f"# a lock\n--index-url https://user:pw@registry.example/simple\nNumPy=={version('numpy')}\nmsgspec==0.0.1\n"
        "no_such.Package==1.0\nmpi4py==4.0.0\nnvidia-cuda==1\nclick>=8\n"
        "thing @ https://example.org/thing.whl\ngit+https://example.org/other.git\n"
        "only-old==1 ; python_full_version < '3.0'\n",
    )
    report = verify_lockfile(path, skip=("nvidia-*",))
    states = {each.name: each.status for each in report.results}
    assert states == {
        "numpy": "matched",
        "msgspec": "mismatched",
        "no-such-package": "missing",
        "mpi4py": "skipped",
        "nvidia-cuda": "skipped",
        "click": "mismatched",
        "thing": "skipped",
        "git+https://example.org/other.git": "skipped",
        "only-old": "skipped",
    }
    assert not report.valid
    assert (report.matched, report.mismatched, report.missing, report.skipped) == (1, 2, 1, 5)
    assert report.skip_patterns == ("mpi4py", "nvidia-*")
    assert f"msgspec {version('msgspec')} (locked 0.0.1)" in report.sentence()
    assert "no-such-package not installed" in report.sentence()


def test_a_missing_package_may_be_allowed(tmp_path: Path) -> None:
    path = lock(tmp_path, f"click=={version('click')}\nno-such-package==1\n")
    assert not verify_lockfile(path).valid
    assert verify_lockfile(path, allow_missing=True).valid
    with pytest.raises(PreflightError, match=r"1 of 2 packages are not as locked \(PKG-03\)"):
        require_locked(path)


def test_a_long_report_is_cut(tmp_path: Path) -> None:
    path = lock(tmp_path, "\n".join(f"no-such-{number}==1" for number in range(40)))
    assert verify_lockfile(path).sentence().endswith("28 more")


@pytest.mark.parametrize(
    ("pinned", "actual", "same"),
    [
        ("1.0", "1.0.0", True),
        ("2.6.0", "2.6.0+cpu", True),
        ("2.6.0+cpu", "2.6.0", False),
        ("1.0rc1", "1.0.0rc1", True),
        ("1.10", "1.1", False),
        ("2.9.post0", "2.9", False),
    ],
)
def test_versions(pinned: str, actual: str, same: bool) -> None:
    assert same_version(pinned, actual) is same


@pytest.mark.parametrize(
    ("marker", "holds"),
    [
        ("", True),
        ("python_full_version >= '3.11'", True),
        ("python_version < '3.10'", False),
        ("'3.9' <= python_version and sys_platform == 'linux'", True),
        ("sys_platform == 'win32' or (os_name == 'posix' and python_version != '2.7')", True),
        ("platform_machine not in 'x86_64 aarch64'", False),
        ("python_version in '3.12 3.13'", False),
    ],
)
def test_markers(marker: str, holds: bool) -> None:
    names = {
        "python_version": "3.11",
        "python_full_version": "3.11.7",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_machine": "x86_64",
    }
    assert applies(marker, names) is holds


@pytest.mark.parametrize(
    "marker",
    ["python_version", "python_version >", "(os_name == 'a'", "os.system('x')", "x == 'y'", "(" * 99, "a" * 3000],
)
def test_no_marker(marker: str) -> None:
    with pytest.raises(ValueError, match=r"marker|bracket"):
        applies(marker)


def test_a_marker_that_cannot_be_read_is_not_overlooked(tmp_path: Path) -> None:
    report = verify_lockfile(lock(tmp_path, "click==0.0.1 ; planet == 'mars'\n"))
    assert [each.status for each in report.results] == ["mismatched"]


def test_files_that_are_no_lock(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no lock file"):
        verify_lockfile(tmp_path / "none.txt")
    with pytest.raises(CorruptError, match=r"requirements.txt:2.*no requirement|no requirement.*:2"):
        verify_lockfile(lock(tmp_path, "click==1\nwhat is this\n"))
    path = tmp_path / "binary.txt"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptError, match="text file"):
        verify_lockfile(path)
    with pytest.raises(CorruptError, match="regular file"):
        verify_lockfile(tmp_path)
    with path.open("wb") as file:
        file.truncate((16 << 20) + 1)
    with pytest.raises(CorruptError, match="too large"):
        verify_lockfile(path)


def test_the_lock_of_this_release_can_be_read() -> None:
    path = Path(__file__).parents[3] / "src" / "stoker" / "locks" / "full.lock"
    report = verify_lockfile(path, allow_missing=True)
    assert report.total_packages > 40
    assert {each.name for each in report.results} >= {"numpy", "msgspec", "pytest"}
    assert all(isinstance(told, str) for told in not_as_locked())


def test_names_are_normalised() -> None:
    assert [pin.name for pin in parse_lock("Foo__Bar.baz[extra]==1.0\n")] == ["foo-bar-baz"]
    assert "hdrhistogram" in installed_versions()


def project(tmp_path: Path) -> Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\nname = "demo"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = []\n'
        "[project.optional-dependencies]\nmore = []\nall = []\n"
    )
    return path


def fake_uv(tmp_path: Path, body: str) -> Path:
    """A resolver that is run as a real process; what it is asked for lies in `asked`."""
    path = tmp_path / "uv"
    path.write_text(
        f"#!{sys.executable}\nimport sys, pathlib\nwords = sys.argv[1:]\n"
        f"with open({str(tmp_path / 'asked')!r}, 'a') as file: print(*words, file=file)\n"
        f"output = pathlib.Path(words[words.index('--output-file') + 1])\n{body}\n"
    )
    path.chmod(0o755)
    return path


def test_generate_asks_the_resolver_and_names_no_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "--index-url https://u:secret@registry.example/simple\\nclick==8.1 \\\\\\n    --hash=sha256:aa\\n    # from https://registry.example/x\\n"
    monkeypatch.setenv("UV", str(fake_uv(tmp_path, f"output.write_text('{text}')")))
    output = tmp_path / "out" / "requirements.txt"
    made = generate_lockfile(output, pyproject=project(tmp_path), hashes=True, python_version="3.12", every=True)
    assert [path.name for path in made] == ["requirements.txt", "requirements-full.txt"]
    for path in made:
        assert "registry" not in path.read_text()
        assert "click==8.1" in path.read_text()
        assert "--hash=sha256:aa" in path.read_text()
    base, full = (tmp_path / "asked").read_text().splitlines()
    assert "--generate-hashes" in base and "--python-version 3.12" in base and "--extra" not in base
    assert "--extra=all" in full
    assert sorted(path.name for path in output.parent.iterdir()) == ["requirements-full.txt", "requirements.txt"]


def test_generate_tells_why_nothing_resolves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", str(fake_uv(tmp_path, "sys.exit('no way at https://me:pw@registry.example/simple')")))
    output = tmp_path / "requirements.txt"
    output.write_text("click==1\n")
    with pytest.raises(StokerError, match="no way") as caught:
        generate_lockfile(output, pyproject=project(tmp_path))
    assert "pw" not in str(caught.value)
    assert output.read_text() == "click==1\n"  # what was there stays


def test_generate_without_uv_or_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(MissingExtraError, match="pip install uv"):
        generate_lockfile(tmp_path / "out.txt", pyproject=project(tmp_path))
    with pytest.raises(NotFoundError, match="no project"):
        generate_lockfile(tmp_path / "out.txt", pyproject=tmp_path / "none.toml")
    with pytest.raises(UsageError, match="more, all"):
        generate_lockfile(tmp_path / "out.txt", pyproject=project(tmp_path), extras=("less",))
    with pytest.raises(UsageError, match=r"3\.11"):
        generate_lockfile(tmp_path / "out.txt", pyproject=project(tmp_path), python_version="3; rm")


@pytest.mark.skipif(not os.access(Path(sys.executable).with_name("uv"), os.X_OK), reason="uv is not installed")
def test_generate_with_the_real_resolver(tmp_path: Path) -> None:
    made = generate_lockfile(tmp_path / "requirements.txt", pyproject=project(tmp_path), extras=("more",))
    assert verify_lockfile(made[0]).valid  # a project without requirements needs no registry


def test_addresses_that_are_requirements_stay() -> None:
    text = "thing @ https://example.org/thing.whl\n-i https://registry.example\nclick==1  # via https://x.example/y\n"
    assert without_registries(text) == "thing @ https://example.org/thing.whl\nclick==1  # via\n"
