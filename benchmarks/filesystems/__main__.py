"""`python -m benchmarks.filesystems`: file systems side by side, mounted on one machine, in one run.

Every file system is brought up, with what it keeps on the same disk; then they take turns at each work, round by
round. The disk itself is the ceiling. What is durable is said in the table: with fsync all of them answer for the
file's bytes, MooseFS's master does not sync its log of names.
"""

import argparse
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from benchmarks.contest import Contest, markdown
from benchmarks.filesystems.ours import OURS, Native, native_works
from benchmarks.filesystems.peers import juicefs, local_disk, moosefs, seaweedfs
from benchmarks.filesystems.works import WORKS, Sizes
from benchmarks.fsmeta import sync_seconds
from benchmarks.harness import Contender, PeerError, Turn, machine, race
from benchmarks.memory import touch_memory
from stoker.core.clock import utc_text
from stoker.core.errors import StokerError
from stoker.core.units import MiB

Place = Callable[[Path], AbstractContextManager[Path | Native]]

PLACES: dict[str, Place] = {
    **OURS,
    "MooseFS, 2 copies": moosefs,
    "JuiceFS, SQLite, 1 copy": juicefs,
    "SeaweedFS, 1 copy": seaweedfs,
    "the disk, 1 copy": local_disk,
}
CEILING = "the disk, 1 copy"
QUICK = Sizes(64 * MiB, 320, 500, 1000)
DEFAULT = Sizes(512 * MiB, 3200, 2000, 10_000)
FULL = Sizes(2048 * MiB, 16_000, 10_000, 100_000)


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filesystems", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--full", action="store_true", help="100,000 samples, 2 GiB, 16,000 creates")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="file systems whose names have one of these words (comma between)")
    parser.add_argument("--work", default="", help="works whose names have one of these words (comma between)")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder on a disk")
    parser.add_argument("--cold-memory", action="store_true", help="do not touch the free memory before")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args(words)


def chosen(names: list[str], words: str) -> list[str]:
    """Return the names that have one of the words in them; all without words."""
    wanted = [word.strip().lower() for word in words.split(",") if word.strip()]
    return [name for name in names if not wanted or any(word in name.lower() for word in wanted)]


def contests(options: argparse.Namespace, sizes: Sizes, scratch: Path) -> list[Contest]:
    """Bring the file systems up, let them take turns at each work, and take them down."""
    found: list[Contest] = []
    missing: dict[str, str] = {}
    with ExitStack() as running:
        folders: dict[str, Path | Native] = {}
        for name in chosen(list(PLACES), options.only):
            try:
                folders[name] = running.enter_context(PLACES[name](scratch))
            except PeerError as error:
                missing[name] = str(error)
            print(f"{name}: {missing.get(name, 'up')}", file=sys.stderr, flush=True)
        for work in chosen(list(WORKS), options.work):
            able = {name: _turns(work, folder, sizes) for name, folder in folders.items() if _can(work, folder)}
            contenders = [Contender(name, turn) for name, turn in able.items()]
            race(contenders, options.rounds)
            found.append(Contest(work, contenders, CEILING if CEILING in folders else "", missing=dict(missing)))
            print(f"{work}: done", file=sys.stderr, flush=True)
    return found


def _can(work: str, folder: Path | Native) -> bool:
    return not isinstance(folder, Native) or work in native_works(folder)


def _turns(work: str, folder: Path | Native, sizes: Sizes) -> Callable[[], Turn]:
    def turn() -> Turn:
        try:
            if isinstance(folder, Native):
                return native_works(folder)[work](folder, sizes)
            return WORKS[work](folder, sizes)
        except (OSError, AssertionError, StokerError) as error:
            raise PeerError(f"{type(error).__name__}: {error}") from error

    return turn


def main(words: list[str] | None = None) -> None:
    """Measure, write `filesystems.json` and `filesystems.md`, print the tables."""
    words = sys.argv[1:] if words is None else words
    options = parsed(words)
    sizes = QUICK if options.quick else FULL if options.full else DEFAULT
    memory = "memory as it was" if options.cold_memory else touch_memory()
    before = sync_seconds(options.scratch)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="stoker-fs-", ignore_cleanup_errors=True) as scratch:
        documents = [contest.document() for contest in contests(options, sizes, Path(scratch))]
    command = shlex.join(["python", "-m", "benchmarks.filesystems", *words])
    facts = {
        "memory": memory,
        "sync_seconds": [before, sync_seconds(options.scratch)],
        "load_average": os.getloadavg()[1],
    }
    document = {"utc": utc_text(), "command": command, "machine": machine(), **facts, "tables": documents}
    told = ", ".join(f"{key} {value}" for key, value in document["machine"].items())
    syncs = " and ".join(f"{1000 * seconds:.1f}" for seconds in document["sync_seconds"])
    head = f"## File systems side by side\n\nCommand: `{command}`, {document['utc']}. Machine: {told}.\n"
    head += f"One fdatasync of the disk took {syncs} ms before and after; load average {document['load_average']:.1f}; "
    head += f"{memory}."
    text = "\n\n".join([head, *map(markdown, documents)])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "filesystems.json").write_text(json.dumps(document, indent=1) + "\n")
    (options.out / "filesystems.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
