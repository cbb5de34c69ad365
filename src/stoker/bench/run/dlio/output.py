"""Where the output goes, and the three files Hydra leaves there: config.yaml, hydra.yaml, overrides.yaml."""

import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.run.dlio.config import DlioConfig, without_secrets
from stoker.bench.run.dlio.tree import Leaf, find, plain
from stoker.core import clock
from stoker.core.errors import UsageError
from stoker.core.files import check_key

_REFERENCE: Final = re.compile(r"\$\{([^{}]*)\}")
_NOW: Final = "now:"
_JOB_NAME: Final = "dlio_benchmark"


class OutputPlaces(msgspec.Struct, frozen=True):
    """`folder` receives DLIO's files, `log_file` is the log's name in it; Hydra's files go to `hydra_folder`/
    `hydra_subdir`, or nowhere when that is empty."""

    folder: str
    log_file: str
    hydra_folder: str
    hydra_subdir: str


def output_places(config: DlioConfig, *, moment_seconds: float | None = None) -> OutputPlaces:
    """Return where the output goes: `output.folder`, or Hydra's run folder, or its sweep folder in a multirun.

    `moment_seconds` is the wall-clock time that stands in folder names; now when not told.
    Raises UsageError for an interpolation that is not supported, or names that leave the folder.
    """
    seconds = clock.wall_seconds() if moment_seconds is None else moment_seconds
    moment = datetime.fromtimestamp(seconds)  # local time, as in DLIO's folder names
    if config.composition.sweep_number < 0:
        hydra_folder = _hydra_text(config, ("run", "dir"), moment)
    else:
        base = _hydra_text(config, ("sweep", "dir"), moment)
        hydra_folder = os.path.join(base, check_key(_hydra_text(config, ("sweep", "subdir"), moment)))
    hydra_folder = os.path.normpath(hydra_folder)
    subdir = _hydra_text(config, ("output_subdir",), moment)
    return OutputPlaces(
        folder=config.text("output.folder") or hydra_folder,
        log_file=check_key(config.text("output.log_file") or "dlio.log"),
        hydra_folder=hydra_folder,
        hydra_subdir=check_key(subdir) if subdir else "",
    )


def _hydra_text(config: DlioConfig, path: tuple[str, ...], moment: datetime) -> str:
    node = find(config.composition.hydra, path)
    if not isinstance(node, Leaf):
        raise UsageError(f"hydra.{'.'.join(path)} is no good", expected="a folder name")
    if node.value is None:
        return ""
    return _REFERENCE.sub(lambda match: _referenced(config, match[1].strip(), moment), str(node.value))


def _referenced(config: DlioConfig, reference: str, moment: datetime) -> str:
    if reference.startswith(_NOW):
        return moment.strftime(reference.removeprefix(_NOW))
    if reference in ("hydra.job.num", "hydra:job.num"):
        return str(max(config.composition.sweep_number, 0))
    if reference == "workload.model.name":
        return config.text("model.name")
    if reference.startswith("workload."):
        node = find(config.composition.workload, reference.split(".")[1:])
        if isinstance(node, Leaf):
            return str(node.value)
        name = node.get("name") if node is not None else None
        if isinstance(name, Leaf):  # `${workload.model}` of older configurations means the model's label
            return str(name.value)
    raise UsageError(
        "interpolation in a folder name is not supported",
        where=f"${{{reference}}}",
        expected="${now:%Y-%m-%d}, ${workload.section.key} or ${hydra.job.num}",
    )


def render(config: DlioConfig, places: OutputPlaces) -> dict[str, Any]:
    """Return the content of Hydra's three files by name, secrets hidden: what was composed and what was typed."""
    composition = config.composition
    sweeps = composition.sweep_number >= 0
    ours = [word for word in composition.overrides if word.lstrip("+~").startswith("hydra")]
    hydra = {
        **plain(composition.hydra),
        "mode": "MULTIRUN" if sweeps else "RUN",
        "job": {
            "name": _JOB_NAME,
            "config_name": "config",
            "num": max(composition.sweep_number, 0),
            "override_dirname": "",
        },
        "overrides": {
            "hydra": ours,
            "task": [word for word in composition.overrides if word not in ours],
        },
        "runtime": {"output_dir": str(Path(places.hydra_folder).absolute()), "choices": {"workload": config.name}},
    }
    return {
        "config.yaml": {"workload": without_secrets(plain(composition.workload))},
        "hydra.yaml": {"hydra": hydra},
        "overrides.yaml": [word for word in composition.overrides if word not in ours],
    }
