"""Valid trees to start from, and small tools to spoil a copy of one."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from stoker.testing.mlperf_trees import TreeMaker

GONE = object()
BASES: dict[str, Callable[[Path], object]] = {}


def base(make: Callable[[Path], object]) -> Callable[[Path], object]:
    BASES[make.__name__] = make
    return make


@base
def training(root: Path) -> None:
    maker = TreeMaker(root)
    maker.training("closed", "sysA")
    maker.finish()


@base
def two_clients(root: Path) -> None:
    maker = TreeMaker(root)
    maker.training("closed", "sysA", accelerators=16, hosts=2)
    maker.finish()


@base
def seven_runs(root: Path) -> None:
    maker = TreeMaker(root)
    maker.training("closed", "sysA", runs=7)
    maker.finish()


@base
def old_model(root: Path) -> None:
    maker = TreeMaker(root)
    maker.training("closed", "sysA", "cosmoflow", "h100")
    maker.finish()


@base
def open_training(root: Path) -> None:
    maker = TreeMaker(root)
    maker.training("open", "sysA", "retinanet", "mi355")
    maker.finish()


@base
def checkpointing(root: Path) -> None:
    maker = TreeMaker(root)
    maker.checkpointing("closed", "sysA")
    maker.finish()


@base
def large_memory(root: Path) -> None:
    maker = TreeMaker(root, memory_gib=512.0)
    maker.checkpointing("closed", "sysA")
    maker.finish()


@base
def split(root: Path) -> None:
    maker = TreeMaker(root)
    maker.checkpointing("closed", "sysA", "llama3-70b", hosts=8, split=True)
    maker.finish()


@base
def open_checkpointing(root: Path) -> None:
    maker = TreeMaker(root)
    maker.checkpointing("open", "sysA", "llama3-70b", hosts=8)
    maker.finish()


@base
def vectors(root: Path) -> None:
    maker = TreeMaker(root)
    maker.vector_database("closed", "sysA")
    maker.finish()


@base
def open_vectors(root: Path) -> None:
    maker = TreeMaker(root)
    maker.vector_database("open", "sysA", "IVF_FLAT")
    maker.finish()


@base
def closed_wrong_index(root: Path) -> None:
    maker = TreeMaker(root)
    maker.vector_database("closed", "sysA", "IVF_FLAT")
    maker.finish()


@base
def kv(root: Path) -> None:
    maker = TreeMaker(root)
    maker.kv_cache("closed", "sysA")
    maker.finish()


@base
def open_kv(root: Path) -> None:
    maker = TreeMaker(root)
    maker.kv_cache("open", "sysA", "tiny-1b")
    maker.finish()


@base
def gated(root: Path) -> None:
    """Runs that keep a record of the gates before them."""
    maker = TreeMaker(root, gated=True)
    maker.training("closed", "sysA", accelerators=16, hosts=2)
    maker.checkpointing("closed", "sysA")
    maker.vector_database("closed", "sysA")
    maker.kv_cache("closed", "sysA")
    maker.finish()


@base
def everything(root: Path) -> None:
    maker = TreeMaker(root)
    for division in ("closed", "open"):
        maker.training(division, "sysA")
        maker.checkpointing(division, "sysB", "llama3-405b", hosts=64, split=division == "open")
        maker.vector_database(division, "sysA", "HNSW")
        maker.kv_cache(division, "sysB", hosts=2)
    maker.finish()


@base
def second_edition(root: Path) -> None:
    maker = TreeMaker(root, edition="2.0")
    maker.training("closed", "sysA", "unet3d", "h100")
    maker.checkpointing("closed", "sysA")
    maker.finish()


@base
def second_edition_large(root: Path) -> None:
    maker = TreeMaker(root, edition="2.0")
    maker.checkpointing("closed", "sysA", "llama3-70b", hosts=1)
    maker.finish()


@base
def second_edition_open(root: Path) -> None:
    maker = TreeMaker(root, edition="2.0")
    maker.training("open", "sysA", "resnet50", "a100")
    maker.finish()


@base
def first_edition(root: Path) -> None:
    maker = TreeMaker(root, edition="1.0")
    maker.v1_training("closed", "sysA")
    maker.v1_training("open", "sysB", "cosmoflow", "a100", accelerators=4)
    maker.finish()


@base
def results_folder(root: Path) -> None:
    """The tool's own results folder of edition 2.0: no division, no submitter."""
    maker = TreeMaker(root / "whole", edition="2.0")
    maker.training("closed", "sysA", "unet3d", "h100")
    shutil.move(root / "whole/Closed/example/results/sysA/training", root / "training")
    shutil.rmtree(root / "whole")


@base
def leaf(root: Path) -> None:
    maker = TreeMaker(root / "whole")
    folder = maker.training("closed", "sysA")
    for each in sorted((folder / "run").iterdir())[3].iterdir():
        shutil.move(each, root / each.name)
    shutil.rmtree(root / "whole")


@base
def nothing(root: Path) -> None:
    root.mkdir(exist_ok=True)


class Spot:
    """A copy of a tree to be spoiled. Patterns are globs below the root; they must find something."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, pattern: str) -> list[Path]:
        found = sorted(self.root.glob(pattern))
        assert found, f"nothing is {pattern}"
        return found

    def put(self, pattern: str, key: str, value: Any, *, only: int | None = None) -> "Spot":
        """Set a dotted key in the JSON or YAML files; a callable gets the old value, GONE takes the key away."""
        found = self.find(pattern)
        for path in found if only is None else [found[only]]:
            is_json = path.suffix == ".json"
            document = json.loads(path.read_text()) if is_json else yaml.safe_load(path.read_text())
            _set(document, key.split("|") if "|" in key else key.split("."), value)
            path.write_text(json.dumps(document) if is_json else yaml.safe_dump(document, sort_keys=False))
        return self

    def drop(self, pattern: str, *, only: int | None = None) -> "Spot":
        found = self.find(pattern)
        for path in found if only is None else [found[only]]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self

    def write(self, name: str, text: str | bytes = "") -> "Spot":
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return self

    def folder(self, name: str) -> "Spot":
        (self.root / name).mkdir(parents=True)
        return self

    def link(self, name: str, target: str) -> "Spot":
        os.symlink(target, self.root / name)
        return self

    def move(self, old: str, new: str) -> "Spot":
        (self.root / new).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self.root / old, self.root / new)
        return self

    def shift(self, pattern: str, seconds: float, *, only: int) -> "Spot":
        """Move start and end of a run's summary by so many seconds."""
        from datetime import datetime, timedelta

        def later(text: str) -> str:
            return (datetime.fromisoformat(text) + timedelta(seconds=seconds)).isoformat()

        return self.put(pattern, "start", later, only=only).put(pattern, "end", later, only=only)

    def manifest(self) -> "Spot":
        """Have the manifests name the runs and systems that are there."""
        for path in self.find("*/*/submission.yaml"):
            here = path.parent
            runs = {each.parent for each in here.glob("results/**/*_metadata.json") if _is_run(each.parent)}
            document = yaml.safe_load(path.read_text())
            document["runs"] = sorted(each.relative_to(here).as_posix() for each in runs)
            document["systems"] = sorted(each.name for each in (here / "results").iterdir())
            path.write_text(yaml.safe_dump(document, sort_keys=False))
        return self


def _is_run(leaf: Path) -> bool:
    return leaf.parent.name == "run" or leaf.parent.parent.name == "checkpointing"


def _set(document: Any, keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        document = document[int(key)] if isinstance(document, list) else document.setdefault(key, {})
    last: Any = int(keys[-1]) if isinstance(document, list) else keys[-1]
    if value is GONE:
        del document[last]
    else:
        document[last] = value(document[last]) if callable(value) else value
