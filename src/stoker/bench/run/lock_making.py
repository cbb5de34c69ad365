"""A lock made from a project's own metadata, by uv as the resolver; it names no registry."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from stoker.core.errors import CorruptError, MissingExtraError, NotFoundError, StokerError, UsageError
from stoker.core.files import redact_url, write_atomic

FULL_LOCK: Final = "requirements-full.txt"
RESOLVE_SECONDS: Final = 600
_PYTHON_VERSION: Final = re.compile(r"3\.\d{1,2}(?:\.\d{1,2})?")
_REGISTRY_LINE: Final = re.compile(r"^\s*(--(extra-)?index-url|--find-links|--trusted-host|-i|-f)\b.*\n?", re.MULTILINE)
_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://\S+")
_REQUIREMENT_ADDRESS: Final = re.compile(r"^\S+(?:\[\S*\])?\s+@\s|^[a-z]+\+[a-z]+://|^https?://", re.IGNORECASE)


def generate_lockfile(
    output: str | Path = "requirements.txt",
    *,
    pyproject: str | Path = "pyproject.toml",
    extras: Sequence[str] = (),
    hashes: bool = False,
    python_version: str = "",
    every: bool = False,
) -> list[Path]:
    """Resolve a project into a lock at `output` and return the files that were written.

    With `every` two are written: the base beside `requirements-full.txt`, which holds all extras (the extra `all` of
    a project that has one). Pins of an existing lock are kept where they still fit.

    Raises MissingExtraError without uv, NotFoundError without the project, UsageError for an extra it does not have,
    StokerError when nothing resolves.
    """
    project, place = Path(pyproject), Path(output)
    known = _extras_of(project)
    for extra in extras:
        if extra not in known:
            raise UsageError("no such extra", where=extra, expected=", ".join(known) or "none: the project has none")
    if python_version and not _PYTHON_VERSION.fullmatch(python_version):
        raise UsageError("no Python version", where=python_version, expected="such as 3.11")
    if every and extras:
        raise UsageError("all variants are made of the base and of every extra", remedy="leave out --extra or --all")
    words = [] if not hashes else ["--generate-hashes"]
    words += ["--python-version", python_version] if python_version else []
    program = _uv()
    _resolve(program, project, place, [*words, *(f"--extra={extra}" for extra in extras)])
    if not every:
        return [place]
    full = place.with_name(FULL_LOCK)
    _resolve(program, project, full, [*words, "--extra=all" if "all" in known else "--all-extras"])
    return [place, full]


def _extras_of(project: Path) -> list[str]:
    try:
        found = tomllib.loads(project.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "name it with --pyproject"
        raise NotFoundError("no project", where=str(project), got=error.strerror or "", remedy=remedy) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CorruptError("the project cannot be read", where=str(project), got=str(error)) from error
    table = found.get("project")
    extras = table.get("optional-dependencies") if isinstance(table, dict) else None
    return list(extras) if isinstance(extras, dict) else []


def _uv() -> str:
    """Return the resolver: `UV`, beside our Python, or on the path."""
    beside = Path(sys.executable).with_name("uv")
    found = os.environ.get("UV") or (str(beside) if beside.is_file() else shutil.which("uv"))
    if not found:
        raise MissingExtraError("uv is needed to resolve a lock and is not installed", remedy="pip install uv")
    return found


def _resolve(program: str, project: Path, output: Path, more: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / output.name
        if output.is_file():
            shutil.copyfile(output, scratch)
        words = [program, "pip", "compile", str(project), "--universal", "--no-emit-index-url", "--no-emit-find-links"]
        words += ["--no-annotate", "--no-header", "--quiet", "--output-file", str(scratch), *more]
        try:
            ended = subprocess.run(  # noqa: S603 - the resolver that was found
                words, capture_output=True, text=True, timeout=RESOLVE_SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise StokerError("no lock was resolved in time", expected=f"{RESOLVE_SECONDS} s") from error
        except OSError as error:
            remedy = "pip install uv"
            raise MissingExtraError("uv does not start", where=program, got=str(error), remedy=remedy) from error
        if ended.returncode:
            told = _ADDRESS.sub(lambda found: redact_url(found[0]), " ".join(ended.stderr.split())[-400:])
            raise StokerError("no lock could be resolved", where=str(project), got=told)
        text = without_registries(scratch.read_text(encoding="utf-8"))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, text.encode())


def without_registries(text: str) -> str:
    """Return a lock without the registries that it was resolved from; requirements that are addresses stay."""
    kept = []
    for line in _REGISTRY_LINE.sub("", text).splitlines():
        bare = line.strip()
        kept.append(line if _REQUIREMENT_ADDRESS.match(bare) else _ADDRESS.sub("", line).rstrip())
    return "\n".join(kept) + "\n"
