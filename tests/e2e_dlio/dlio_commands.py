"""The command line as a user of DLIO types it, each in a process and a folder of its own, and its files read back."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stoker.core.result import Result, load_result

RUN_SECONDS = 60
CONFIG_FOLDER = "conf"
OUT = "out"
WRAPPER_WORDS = (f"++hydra.run.dir={OUT}", "++hydra.output_subdir=dlio_config")


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object that `--json` printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


@dataclass(frozen=True)
class Place:
    """A folder that commands are run in; workload files lie below it in `conf/workload`."""

    folder: Path

    def workload(self, name: str, content: Mapping[str, Any] | str) -> str:
        """Write a workload file and return the word that chooses it."""
        file = self.folder / CONFIG_FOLDER / "workload" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(dict(content), sort_keys=False))
        return f"workload={name}"

    def stoker(self, *words: str, variables: Mapping[str, str] | None = None) -> Done:
        """Run our command line with `words` and return how it ended."""
        return run([str(Path(sys.executable).with_name("stoker")), *words], self.folder, variables)

    def dlio(self, *words: str) -> Done:
        """Run `stoker dlio` as MLPerf's wrapper words it: the output in `out`, Hydra's files in `out/dlio_config`."""
        return self.stoker("dlio", *words, *WRAPPER_WORDS, f"--config-dir={CONFIG_FOLDER}", "--json")

    def result(self, out: str = OUT) -> Result:
        """Return our own result of the run."""
        return load_result(self.folder / out / "stoker")

    def files(self, split: str, data: str = "data") -> list[str]:
        """Return the split's files below the data folder, sorted."""
        top = self.folder / data / split
        return sorted(str(file.relative_to(top)) for file in top.rglob("*") if file.is_file())

    def json(self, name: str, out: str = OUT) -> dict[str, Any]:
        """Return one of DLIO's JSON files."""
        found: dict[str, Any] = json.loads((self.folder / out / name).read_text())
        return found


def run(command: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> Done:
    """Run a command in `folder` without a terminal; return how it ended."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", **(variables or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def tiny(form: str, *, framework: str = "pytorch", **sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload that takes a moment: 8 files of one 4 KiB sample, batch 2, 5 ms a step; sections are merged."""
    whole: dict[str, Any] = {
        "model": {"name": f"tiny_{form}"},
        "framework": framework,
        "workflow": {"generate_data": True, "train": True, "checkpoint": False},
        "dataset": {"data_folder": "data", "format": form, "num_files_train": 8, "record_length_bytes": 4096},
        "reader": {"data_loader": framework, "batch_size": 2, "read_threads": 1},
        "train": {"epochs": 2, "computation_time": 0.005},
    }
    for name, section in sections.items():
        whole[name] = {**whole.get(name, {}), **section}
    return whole
