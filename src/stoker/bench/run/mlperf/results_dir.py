"""The results directory: the mark that `init` leaves, how it is found, and where in it a leaf belongs.

    mlperf-results.yaml                       the mark
    .mlps/{history,runs.jsonl,trash,evidence} ours: the journal, removed runs, the run folders behind the leaves
    code-images/…
    {closed,open,whatif}/<org>/{systems,results}/…

Every name that becomes a folder is held to one pattern, so that none leads out of the tree.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker import __version__
from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.core import clock
from stoker.core.errors import CorruptError, StokerError, UsageError
from stoker.core.files import sync_folder, write_atomic
from stoker.core.plain_yaml import load_plain

SENTINEL: Final = "mlperf-results.yaml"
SENTINEL_VERSION: Final = 2
VERSIONS_READ: Final = (1, 2)
HIDDEN: Final = ".mlps"
DIVISIONS: Final = ("closed", "open", "whatif")
VARIABLE: Final = "MLPSTORAGE_RESULTS_DIR"
FAMILIES: Final = {
    "training": "training",
    "checkpointing": "checkpointing",
    "vectordb": "vector_database",
    "vector_database": "vector_database",
    "kvcache": "kv_cache",
    "kv_cache": "kv_cache",
}
_EARLIER: Final = ("RESULTS_DIR", "SYSTEMNAME", "DATA_DIR", "CHECKPOINT_FOLDER", "CHECKPOINT_URI_SCHEME")
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_STAMP_FORMAT: Final = "%Y%m%d_%H%M%S"
_SENTINEL_BYTES_MAX: Final = 64 << 10
_TRIES_MAX: Final = 120
_OF_A_FRESH_DISK: Final = "lost+found"


@dataclass(frozen=True)
class ResultsDir:
    """An initialised results directory: its real path, and the organisation it belongs to."""

    root: Path
    org: str

    @property
    def hidden(self) -> Path:
        """Return the folder of what is ours: the journal, the trash, the evidence."""
        return self.root / HIDDEN

    def evidence(self, stamp: str, family: str, model: str, run: str) -> Path:
        """Return where the run folder behind a leaf lies: outside of what is submitted."""
        names = [check_name(name, what) for name, what in ((stamp, "stamp"), (model, "model"), (run, "run's id"))]
        return self.hidden / "evidence" / f"{names[0]}-{family_folder(family)}-{names[1]}-{names[2]}"

    def leaf(
        self, division: str, system: str, family: str, model: str, command: str, stamp: str, engine: str = ""
    ) -> Path:
        """Return the folder of one invocation; nothing is made. `model` is the index for a vector database.

        A checkpointing result has no level for the command: only runs leave a folder there. Raises UsageError for a
        name that cannot be one.
        """
        return self._series(division, system, family, model, command, engine) / check_name(stamp, "stamp")

    def _series(self, division: str, system: str, family: str, model: str, command: str, engine: str) -> Path:
        if division not in DIVISIONS:
            raise UsageError("no such division", where=division, expected=", ".join(DIVISIONS))
        folder = family_folder(family)
        parts = [division, self.org, "results", check_name(system, "system's name"), folder]
        if folder == "vector_database":
            parts.append(check_name(engine, "engine"))
        parts.append(check_name(model, "index" if folder == "vector_database" else "model"))
        if folder != "checkpointing":
            parts.append(check_name(command, "command"))
        elif command != "run":
            raise UsageError("only runs of checkpointing leave a folder", where=command, expected="run")
        return self.root.joinpath(*parts)

    def new_stamp(self, division: str, system: str, family: str, model: str, command: str, engine: str = "") -> str:
        """Return the local time that names a new leaf; waits for the next second while one of that name is there.

        Two that ask at once may get the same: `new_leaf` decides that by making the folder.
        """
        series = self._series(division, system, family, model, command, engine)
        for _ in range(_TRIES_MAX):
            stamp = stamp_now()
            if not os.path.lexists(series / stamp):
                return stamp
            _wait_for_next_second()
        raise StokerError("no free name for a new run", where=str(series), remedy="set the clock right")

    def new_leaf(
        self, division: str, system: str, family: str, model: str, command: str, engine: str = ""
    ) -> tuple[str, Path]:
        """Make the folder of a new invocation, which nobody else has; return its stamp and its path.

        Raises ConfigurationError when a link leads out of the tree.
        """
        series = self._series(division, system, family, model, command, engine)
        for _ in range(_TRIES_MAX):
            series.mkdir(parents=True, exist_ok=True)  # again each time: empty folders may be pruned
            self._refuse_detour(series)
            stamp = stamp_now()
            try:
                (series / stamp).mkdir()
            except FileNotFoundError:
                continue
            except FileExistsError:
                _wait_for_next_second()
                continue
            return stamp, series / stamp
        raise StokerError("no free name for a new run", where=str(series), remedy="set the clock right")

    @staticmethod
    def _refuse_detour(series: Path) -> None:
        if series.resolve() != series:
            raise ConfigurationError(
                "a link leads out of the results directory's layout",
                where=str(series),
                got=str(series.resolve()),
                remedy="replace the link by a folder",
            )


def stamp_now() -> str:
    """Return the local time of this host as leaves are named by it, YYYYMMDD_HHMMSS."""
    return clock.local_text(_STAMP_FORMAT)


def _wait_for_next_second() -> None:
    clock.sleep(1.0 - clock.wall_seconds() % 1.0 + 0.001)


def family_folder(family: str) -> str:
    """Return the name of a workload's folder by that name or as it is typed. Raises UsageError for another."""
    if family not in FAMILIES:
        raise UsageError("no such workload", where=family, expected=", ".join(FAMILIES))
    return FAMILIES[family]


def is_name(text: str) -> bool:
    """Tell whether a text may become a folder's name."""
    return bool(_NAME.fullmatch(text)) and text not in (".", "..")


def check_name(name: str, what: str) -> str:
    """Return a name that may become a folder. Raises UsageError for any other; `what` tells what it is the name of."""
    if not is_name(name):
        raise UsageError(f"not a legal {what}", where=name, expected="letters, digits, '.', '_' and '-'")
    return name


# -- init ------------------------------------------------------------------------------------------------------------


def initialise(root: Path, org: str) -> ResultsDir:
    """Make `root` the results directory of an organisation; return it. The same organisation again changes nothing.

    Raises UsageError for an illegal name, and ConfigurationError for a directory of another organisation
    (double-init), or one that holds other things already.
    """
    check_name(org, "name of an organisation")
    root.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(root / SENTINEL):
        _refuse_what_is_there(root)
        _write_sentinel(root, org)
    found = _opened(root)
    if found.org != org:
        raise ConfigurationError(
            "double-init: the results directory belongs to another organisation",
            where=str(found.root),
            expected=org,
            got=found.org,
            remedy="name another directory; names are case-sensitive",
        )
    found.hidden.mkdir(exist_ok=True)
    return found


def _refuse_what_is_there(root: Path) -> None:
    names = sorted(entry.name for entry in root.iterdir() if entry.name != _OF_A_FRESH_DISK)
    if names:
        told = f"{len(names)} entries, {names[0]!r} first" if len(names) > 1 else repr(names[0])
        raise ConfigurationError(
            "directory is not empty and was never initialised",
            where=str(root.resolve()),
            expected="an empty or a new one",
            got=told,
            remedy="name another directory",
        )


def _write_sentinel(root: Path, org: str) -> None:
    """Write the mark unless somebody else just did: then theirs counts."""
    text = (
        f'mlperf_results_version: {SENTINEL_VERSION}\norgname: "{org}"\n'
        f'initialized_at: "{clock.utc_text()[:19]}+00:00"\ninitialized_by: "stoker {__version__}"\n'
    )
    try:
        descriptor = os.open(root / SENTINEL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    sync_folder(root)


# -- opening ---------------------------------------------------------------------------------------------------------


def open_results(flag: str | None, environment: Mapping[str, str]) -> ResultsDir:
    """Return the results directory: of the flag, else of MLPSTORAGE_RESULTS_DIR, else the user's recorded one.

    Raises UsageError when none is told and ConfigurationError when the one told was never initialised (both E101).
    """
    return _opened(Path(results_path(flag, environment)))


def results_path(flag: str | None, environment: Mapping[str, str]) -> str:
    """Return the path of the results directory that is told, wherever. Raises UsageError (E101) when none is."""
    told = flag or environment.get(VARIABLE) or _recorded(environment)
    if not told:
        hints = [hint for hint in earlier_spellings(environment) if VARIABLE in hint]
        raise UsageError(
            "E101: no results directory is told",
            expected=f"--results-dir, {VARIABLE}, or one that init recorded",
            remedy="; ".join([*hints, "make one: stoker mlperf init ORG DIR"]),
        )
    return told


def _opened(root: Path) -> ResultsDir:
    """Return the initialised directory at `root`. Raises ConfigurationError (E101)."""
    found = _read_sentinel(root)
    version, org = found.get("mlperf_results_version"), found.get("orgname")
    if version not in VERSIONS_READ or isinstance(version, bool):
        raise _damaged(root, "version 1 or 2", f"mlperf_results_version {version!r:.40}")
    if not isinstance(org, str) or not is_name(org):
        raise _damaged(root, "orgname of letters, digits, '.', '_' and '-'", f"{org!r:.80}")
    return ResultsDir(root.resolve(), org)


def _read_sentinel(root: Path) -> Mapping[str, Any]:
    try:
        with (root / SENTINEL).open("rb") as file:
            data = file.read(_SENTINEL_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        told = f"no {SENTINEL} there" if root.is_dir() else "no such directory"
        raise ConfigurationError(
            "E101: the results directory is not initialised",
            where=str(root),
            got=told,
            remedy="stoker mlperf init ORG DIR makes one",
        ) from error
    try:
        found = load_plain(data.decode()) if len(data) <= _SENTINEL_BYTES_MAX else None
    except (UnicodeDecodeError, CorruptError) as error:
        raise _damaged(root, "plain YAML", str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(root, "a small mapping in YAML", f"{len(data):,} bytes of something else")
    return found


def _damaged(root: Path, expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(
        "E101: the mark of the results directory cannot be used",
        where=str(root / SENTINEL),
        expected=expected,
        got=got,
        remedy="mend it by hand, or initialise another directory",
    )


# -- the user's default ----------------------------------------------------------------------------------------------


def _default_file(environment: Mapping[str, str]) -> Path | None:
    """Return where the default is kept, by the XDG base directories. None when the user has no home."""
    base = environment.get("XDG_CONFIG_HOME", "")
    if not base.startswith("/"):  # the specification has relative ones ignored
        home = environment.get("HOME", "")
        if not home.startswith("/"):
            return None
        base = f"{home}/.config"
    return Path(base) / "stoker" / "mlperf-results-dir"


def record_default(root: Path, environment: Mapping[str, str]) -> Path | None:
    """Remember `root` as the user's results directory; return the file that tells it, None when there is no home."""
    file = _default_file(environment)
    if file is None:
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, os.fsencode(root.resolve()) + b"\n")
    return file


def _recorded(environment: Mapping[str, str]) -> str:
    file = _default_file(environment)
    try:
        data = b"" if file is None else file.read_bytes()[:_SENTINEL_BYTES_MAX]
    except OSError:
        return ""
    told = os.fsdecode(data).removesuffix("\n")
    return told if told.startswith("/") and "\0" not in told and "\n" not in told else ""


def earlier_spellings(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable of the tool's earlier spelling, MLPERF_…, that is set and has no effect."""
    return [
        f"MLPERF_{name} is an earlier spelling without effect: set MLPSTORAGE_{name}"
        for name in _EARLIER
        if environment.get(f"MLPERF_{name}") and not environment.get(f"MLPSTORAGE_{name}")
    ]
