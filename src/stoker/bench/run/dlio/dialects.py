"""Other spellings of the same thing: DLIO's `data_reader`, and the dl-driver dialect, turned into DLIO's keys.

The dl-driver dialect is recognised by its shape: a plain file without a `workload:` section, or a data folder that is
a URL where no storage section explains it.
"""

from collections.abc import Mapping
from typing import Any, Final

from stoker.bench.run.dlio.tree import Leaf, Tree, find, leaves, put, remove

DLIO: Final = "dlio"
DL_DRIVER: Final = "dl-driver"

_RENAMED: Final[Mapping[str, str]] = {
    "reader.prefetch": "reader.prefetch_size",
    "reader.compute_threads": "reader.computation_threads",
    "reader.seed": "train.seed",
    "model.model_size": "model.model_size_bytes",
    "model.framework": "framework",
    "checkpoint.uri": "checkpoint.checkpoint_folder",
    "checkpoint.folder": "checkpoint.checkpoint_folder",
    "checkpoint.path": "checkpoint.checkpoint_folder",
    "checkpoint.dir": "checkpoint.checkpoint_folder",
    "checkpoint.enabled": "workflow.checkpoint",
}
_BLOCK_RENAMED: Final[Mapping[str, str]] = {
    "batch_size": "reader.batch_size",
    "num_workers": "reader.read_threads",
    "seed": "train.seed",
    "shuffle": "reader.shuffle",
}
_FRAMEWORKS: Final = ("pytorch", "tensorflow", "jax")


def translate(tree: Tree, *, wrapped: bool) -> tuple[str, list[str]]:
    """Change `tree` into DLIO's own spelling; return the dialect's name and what was done."""
    told = _reader_section(tree)
    if not is_dl_driver(tree, wrapped=wrapped):
        return DLIO, told
    told += _framework_block(tree)
    if isinstance(tree.get("checkpointing"), dict):
        told += _moved(tree, "checkpointing", "checkpoint")
    for old, new in _RENAMED.items():
        told += _moved(tree, old, new)
    told += _shuffle(tree)
    told += _percent(tree)
    return DL_DRIVER, told


def is_dl_driver(tree: Tree, *, wrapped: bool) -> bool:
    """Tell whether the tree is in the dl-driver dialect."""
    folder = find(tree, ("dataset", "data_folder"))
    has_scheme = isinstance(folder, Leaf) and "://" in str(folder.value)
    return not wrapped or (has_scheme and "storage" not in tree)


def _reader_section(tree: Tree) -> list[str]:
    """Make `data_reader` the reader section; it wins when both are there, as in DLIO."""
    if "data_reader" not in tree:
        return []
    both = "reader" in tree
    tree["reader"] = tree.pop("data_reader")
    return ["both reader and data_reader are given; data_reader counts, as in DLIO"] if both else []


def _moved(tree: Tree, old: str, new: str) -> list[str]:
    """Move a key to its DLIO name unless that one is given too, which then counts."""
    node = find(tree, old.split("."))
    if node is None:
        return []
    present = find(tree, new.split("."))
    if present is not None and not isinstance(present, dict):
        return []  # the old one stays and is told as unknown
    remove(tree, old.split("."))
    put(tree, new.split("."), node)
    return [f"{old} is taken as {new}"]


def _framework_block(tree: Tree) -> list[str]:
    """Take what DLIO has keys for out of the framework's own block (`pytorch_config`, `framework_profiles.pytorch`)."""
    node = find(tree, ("framework",)) or find(tree, ("model", "framework"))
    framework = str(node.value) if isinstance(node, Leaf) else ""
    if framework not in _FRAMEWORKS:
        return []
    told = []
    for block in (f"{framework}_config", f"framework_profiles.{framework}"):
        for name, new in _BLOCK_RENAMED.items():
            told += _moved(tree, f"{block}.{name}", new)
    return told


def _shuffle(tree: Tree) -> list[str]:
    """Turn `reader.shuffle: true` into both of DLIO's shuffles."""
    node = find(tree, ("reader", "shuffle"))
    if not isinstance(node, Leaf) or not isinstance(node.value, bool):
        return []
    word = "seed" if node.value else "off"
    for name in ("file_shuffle", "sample_shuffle"):
        if find(tree, ("reader", name)) is None:
            put(tree, ("reader", name), Leaf(word, node.origin, word))
    remove(tree, ("reader", "shuffle"))
    return [f"reader.shuffle is taken as file_shuffle and sample_shuffle {word}"]


def _percent(tree: Tree) -> list[str]:
    node = find(tree, ("metric", "au"))
    value: Any = node.value if isinstance(node, Leaf) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 < value <= 100:
        return []
    assert isinstance(node, Leaf)
    put(tree, ("metric", "au"), Leaf(value / 100, node.origin))
    return [f"metric.au {value:g} is taken as percent"]


def framework_block_keys(tree: Tree) -> list[tuple[str, str]]:
    """Return (path, where) of what is left in framework blocks, which has no effect here."""
    names = [*(f"{framework}_config" for framework in _FRAMEWORKS), "framework_profiles"]
    return [(".".join(path), leaf.origin.where) for path, leaf in leaves(tree) if path[0] in names]
