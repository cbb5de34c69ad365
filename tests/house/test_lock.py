"""The lock files pin everything pyproject.toml asks for, with hashes and without registry addresses."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
LOCKS = REPO / "src" / "stoker" / "locks"
PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
GPU_PACKAGES = re.compile(r"^(nvidia-|triton|cupy|torch==|tensorflow|jax)", re.MULTILINE)


def pins(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9_.-]+)==([^ ;\\]+)", text, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def wanted(extras: list[str]) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    inner = sorted(
        {extra for requirement in requirements if requirement.name == "stoker" for extra in requirement.extras}
    )
    rest = [requirement for requirement in requirements if requirement.name != "stoker"]
    return rest + (wanted(inner) if inner else [])


@pytest.mark.parametrize(("name", "extras"), [("base.lock", []), ("full.lock", ["dev"])])
def test_lock_pins_every_requirement_with_hashes(name: str, extras: list[str]) -> None:
    text = (LOCKS / name).read_text()
    pinned = pins(text)
    for requirement in wanted(extras):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in {name}: run make lock"
        assert requirement.specifier.contains(version), f"{requirement} against {version}: run make lock"
    entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert len(entries) == len(re.findall(r"^[A-Za-z0-9_.-]+==", text, re.MULTILINE))


@pytest.mark.parametrize("name", ["base.lock", "full.lock"])
def test_lock_names_no_registry_and_no_gpu_package(name: str) -> None:
    text = (LOCKS / name).read_text()
    assert "://" not in text
    assert not GPU_PACKAGES.search(text)
