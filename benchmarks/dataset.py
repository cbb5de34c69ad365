"""The datasets that epochs are raced on: made by our generator, read by everybody."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import GenerateOptions, generate
from stoker.storage.opening import open_store


@dataclass(frozen=True)
class Made:
    """A dataset in a folder; `paths_file` lists its files, a path a line, for interpreters that know nothing of us."""

    folder: Path
    spec: DatasetSpec
    paths_file: Path

    @property
    def url(self) -> str:
        """Return the URL our loader opens."""
        return f"file://{self.folder}"

    def loader_turn(self, **loader: Any) -> dict[str, Any]:
        """Return the arguments of the turn `stoker_epoch` but for the epochs."""
        return {"url": self.url, "spec": msgspec.to_builtins(self.spec), "loader": loader}


def make_dataset(folder: Path, spec: DatasetSpec) -> Made:
    """Generate the split, and list its files."""
    store = open_store(f"file://{folder}?fsync=none", create=True)
    try:
        generate(store, spec, GenerateOptions())
    finally:
        store.close()
    paths_file = folder.with_name(f"{folder.name}.paths")
    paths_file.write_text("\n".join(map(str, sorted(folder.glob(f"{spec.split}/*.{spec.format}")))))
    return Made(folder, spec, paths_file)
