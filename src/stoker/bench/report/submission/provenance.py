"""The stamp of a leaf: which tool, engine, library and core configuration made it, and how each was known."""

from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from stoker import __version__
from stoker.bench.rules.mlperf.documents import CoreConfig, Engine, Known, Library, Provenance, Tool
from stoker.bench.rules.mlperf.formulas import CORE_ALGORITHM, CORE_KEYS, core_hash, core_values
from stoker.core import clock
from stoker.core.errors import CorruptError
from stoker.core.plain_yaml import load_plain

TOOL_NAME: Final = "stoker"
UNKNOWN: Final[Literal["unknown"]] = "unknown"
NONE: Final[Literal["n/a"]] = "n/a"
EDITION: Final = "3.0"
_OBJECT_LIBRARY: Final = "obstore"
_OBJECTS: Final = ("s3", "az", "gs")
_CONFIG_BYTES_MAX: Final = 1 << 20
_ENGINE_NAME: Final = "stoker"

Stamps = dict[str, Known]
"""Dotted name of a fact -> how it was known."""


def tool(code_image: str) -> tuple[Tool, Stamps]:
    """Return the tool, and how each of its facts was known."""
    sha = _git_sha()
    stamps: Stamps = {
        "tool.name": "tool-constant",
        "tool.version": "tool-constant",
        "tool.git_sha": "direct-url" if sha != UNKNOWN else UNKNOWN,
        "tool.code_image": "code-hash-json" if code_image else UNKNOWN,
    }
    return Tool(name=TOOL_NAME, version=__version__, git_sha=sha, code_image=code_image or UNKNOWN), stamps


def _git_sha() -> str:
    """Return the commit that pip installed the package from, where it came from a repository."""
    try:
        text = distribution(TOOL_NAME).read_text("direct_url.json")
        found = msgspec.json.decode(text or "{}", type=dict[str, Any])
    except (PackageNotFoundError, msgspec.DecodeError, OSError):
        return UNKNOWN
    commit = found.get("vcs_info", {}).get("commit_id") if isinstance(found.get("vcs_info"), dict) else None
    return commit if isinstance(commit, str) and commit else UNKNOWN


def provenance(family: str, config: dict[str, Any], *, code_image: str, target_kind: str = "") -> Provenance:
    """Return the stamp. `target_kind` is what was read from: a file system's type, or s3, az, gs."""
    made_by, stamps = tool(code_image)
    library, library_stamps = _library(target_kind)
    core, core_stamps = _core(family, config)
    engine_stamps: Stamps = {
        "dlio.version": "tool-constant",
        "dlio.source": "tool-constant",
        "dlio.commit": stamps["tool.git_sha"],
    }
    every: Stamps = {
        "rules_edition": "tool-constant",
        "layout_version": "tool-constant",
        **stamps,
        **engine_stamps,
        **library_stamps,
        **core_stamps,
        "stamped_at": "runtime",
        "stamped_by": "tool-constant",
    }
    return Provenance(
        schema="mlps-run-provenance/1",
        rules_edition=EDITION,
        layout_version=3,
        tool=made_by,
        dlio=Engine(version=__version__, source=_ENGINE_NAME, commit=made_by.git_sha),
        storage_library=library,
        core_config=core,
        stamped_at=clock.utc_text(),
        stamped_by=TOOL_NAME,
        provenance=every,
    )


def _library(target_kind: str) -> tuple[Library, Stamps]:
    """Return the library under an object store; files are read by the engine itself."""
    names = ("storage_library.name", "storage_library.version")
    if not target_kind:
        return Library(name=UNKNOWN, version=UNKNOWN), dict.fromkeys(names, UNKNOWN)
    if target_kind not in _OBJECTS:
        return Library(name=NONE, version=NONE), dict.fromkeys(names, NONE)
    try:
        found = version(_OBJECT_LIBRARY)
    except PackageNotFoundError:
        found = UNKNOWN
    return Library(name=_OBJECT_LIBRARY, version=found), {names[0]: "runtime", names[1]: "package-metadata"}


def _core(family: str, config: dict[str, Any]) -> tuple[CoreConfig, Stamps]:
    names = [f"core_config.{name}" for name in ("algorithm", "allowlist", "hash", "keys")]
    if family not in CORE_KEYS or not config:
        why = NONE if family not in CORE_KEYS else UNKNOWN
        none = CoreConfig(algorithm=CORE_ALGORITHM, allowlist=UNKNOWN, hash=UNKNOWN, keys="unknown")
        return none, dict.fromkeys(names, why)
    keys = list(core_values(family, config))
    digest = core_hash(family, config)
    core = CoreConfig(algorithm=CORE_ALGORITHM, allowlist=f"{family}@1", hash=digest, keys=keys)
    return core, {names[0]: "tool-constant", names[1]: "tool-constant", names[2]: "runtime", names[3]: "runtime"}


def resolved(leaf: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the resolved workload: as given, else as the engine wrote it into the leaf, else nothing."""
    path = leaf / "dlio_config" / "config.yaml"
    if config or not path.is_file() or path.stat().st_size > _CONFIG_BYTES_MAX:
        return config
    try:
        found = load_plain(path.read_text(encoding="utf-8"))
    except (CorruptError, UnicodeDecodeError):
        return {}
    inner = found.get("workload") if isinstance(found, dict) else None
    told = inner if isinstance(inner, dict) else found
    return told if isinstance(told, dict) else {}
