"""How many files a command makes or reads: as told, as sized, or as they lie there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.results_dir import ResultsDir
from stoker.bench.run.mlperf.storing import DataPlace
from stoker.bench.run.mlperf.words import Word
from stoker.bench.run.target import opened
from stoker.core.errors import NotFoundError, PreflightError, StokerError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.marker import read_marker

FILES: Final = "dataset.num_files_train"
SUBFOLDERS: Final = "dataset.num_subfolders_train"
_METADATA_BYTES_MAX: Final = 16 << 20
_SPLIT: Final = "train"


class Sized(msgspec.Struct, frozen=True):
    """What the newest datasize leaf says, and where it lies in the results directory."""

    files: int
    subfolders: int
    where: str


class Extent(msgspec.Struct, frozen=True):
    """How much there is: by key the word with its origin, what datasize said, and what was generated of it."""

    words: dict[str, Word]
    sized: Sized | None = None
    made: DatasetSpec | None = None
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> int | None:
        """Return the training files of the command, None where nothing tells."""
        word = self.words.get(FILES)
        return int(word.value) if word is not None and word.value.isdecimal() else None


def extent_of(invocation: Invocation, results: ResultsDir | None, data: DataPlace | None) -> Extent:
    """Return the extent of a generation or a run: `--params`, then the newest datasize leaf, then what lies there.

    What cannot be read of the data is noted: a command that needs it will say so.
    """
    sized = newest_size(invocation, results) if results is not None else None
    made, notes = _made(data) if data is not None else (None, ())
    words: dict[str, Word] = {}
    if sized is not None:
        words[FILES] = Word(FILES, str(sized.files), "datasize", sized.where)
        if sized.subfolders and FILES not in invocation.params:
            words[SUBFOLDERS] = Word(SUBFOLDERS, str(sized.subfolders), "datasize", sized.where)
    if made is not None and data is not None and invocation.place.command != "datagen":
        if sized is None:
            words[FILES] = Word(FILES, str(made.files), "manifest", data.url)
        if made.subfolders or SUBFOLDERS in words:
            words[SUBFOLDERS] = Word(SUBFOLDERS, str(made.subfolders), "manifest", data.url)
    for key in (FILES, SUBFOLDERS):
        if key in invocation.params:
            winner = invocation.params[key][0]
            words[key] = Word(key, _count(key, winner.value), winner.origin, winner.where)
    return Extent(words, sized, made, notes)


def require_files(extent: Extent, invocation: Invocation) -> None:
    """Raise UsageError when nothing tells how many files the command takes."""
    if extent.files is None:
        place = invocation.place
        sized = f"stoker mlperf {place.division} training {place.model} datasize"
        raise UsageError(
            "nothing tells how many files the dataset has", remedy=f"run {sized} first, or give --params {FILES}=N"
        )


def _count(key: str, value: Any) -> str:
    text = str(value).strip()
    if not text.isdecimal() or len(text) > 15:
        raise UsageError(f"--params {key}: a whole number is needed", got=text)
    return str(int(text))


def _made(data: DataPlace) -> tuple[DatasetSpec | None, tuple[str, ...]]:
    """Return what we generated there, None where we did not, and why it could not be looked at."""
    if data.folder and not Path(data.folder).is_dir():
        return None, ()
    try:
        with opened(data.url) as store:
            marker = read_marker(store, _SPLIT)
    except NotFoundError:
        return None, ()
    except (StokerError, OSError) as error:
        return None, (f"the dataset was not looked at: {error}",)
    return (marker.spec if marker is not None else None), ()


def newest_size(invocation: Invocation, results: ResultsDir) -> Sized | None:
    """Return what the newest datasize leaf of this division, system and model says."""
    place, system = invocation.place, invocation.value("systemname")
    if not system:
        return None
    series = results.leaf(place.division, system, place.family, place.model, "datasize", "x").parent
    leaves = sorted((leaf for leaf in series.glob("*_*") if leaf.is_dir()), reverse=True) if series.is_dir() else []
    for leaf in leaves:
        found = _read_size(leaf / f"training_{leaf.name}_metadata.json")
        if found is not None:
            return Sized(*found, str(leaf.relative_to(results.root)))
    return None


def _read_size(path: Path) -> tuple[int, int] | None:
    try:
        with path.open("rb") as file:
            document = msgspec.json.decode(file.read(_METADATA_BYTES_MAX))
    except (OSError, msgspec.DecodeError):
        return None
    dataset: Any = document
    for key in ("parameters", "dataset"):
        dataset = dataset.get(key) if isinstance(dataset, Mapping) else None
    if not isinstance(dataset, Mapping):
        return None
    files, subfolders = dataset.get("num_files_train"), dataset.get("num_subfolders_train", 0)
    if isinstance(files, int) and isinstance(subfolders, int) and files > 0 <= subfolders:
        return int(files), int(subfolders)
    return None


def require_dataset(extent: Extent, data: DataPlace) -> None:
    """Raise PreflightError where a run has nothing to read: better now than after the ranks were started."""
    if data.folder and not Path(data.folder).is_dir():
        raise PreflightError(
            "dataset is not there", where=data.folder, remedy="make it with datagen, or correct --data-dir"
        )
    if extent.made is not None and extent.files is not None and extent.files > extent.made.files:
        raise PreflightError(
            "dataset has fewer files than the run reads",
            where=data.url,
            expected=f"{extent.files:,} files ({extent.words[FILES].origin})",
            got=f"{extent.made.files:,} files",
            remedy="make it with datagen, or give --params dataset.num_files_train=N",
        )
