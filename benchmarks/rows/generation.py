"""Row d: making bytes: our fill beside other generators and memcpy, and whole files beside dgen-py and np.savez.

Fills are of one thread, into a block of 64 MiB that is there already. Files are written through the page cache and
removed after each turn; ours are complete NPZ files with checksums, journal and manifest, made by the threads that
`stoker gen` takes by itself; dgen-py takes all the threads it likes.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.harness import Contender, Turn, race
from benchmarks.peers import run_turn, turn_of
from stoker.core.units import MiB

MEMCPY = "memcpy"
WRITE = "writing one constant block"
_BLOCK_BYTES = 64 * MiB


def fills(conditions: Conditions) -> Contest:
    """Race the generators of bytes."""
    asked = {"block_bytes": _BLOCK_BYTES, "blocks": conditions.choose(16, 24, 96)}

    def turn(python: str, script: str, how: str = "") -> Callable[[], Turn]:
        return lambda: turn_of(run_turn(python, script, {**asked, "how": how}))

    ours, missing = conditions.python, {}
    contenders = [
        Contender(MEMCPY, turn(ours, "peer_fill", "memcpy")),
        Contender("stoker fill", turn(ours, "stoker_fill")),
        Contender("NumPy SFC64", turn(ours, "peer_fill", "sfc64")),
        Contender("os.urandom", turn(ours, "peer_fill", "urandom")),
    ]
    python = conditions.peers.python("s3dlio")
    if python is None:
        missing["dgen-py"] = conditions.peers.missing["s3dlio"]
    else:
        contenders.append(Contender("dgen-py, one thread", turn(python, "peer_fill", "dgen")))
    race(contenders, conditions.rounds, warm_rounds=0)
    return Contest("generation/fill", contenders, MEMCPY, missing=missing)


def files(conditions: Conditions) -> Contest:
    """Race the makers of files."""
    count, file_bytes = conditions.choose(2, 4, 8), 140 * MiB

    def turn(python: str, how: str) -> Callable[[], Turn]:
        def work() -> Turn:
            with conditions.folder(count * file_bytes) as folder:
                asked: dict[str, Any] = {"how": how, "folder": str(folder), "files": count, "file_bytes": file_bytes}
                return turn_of(run_turn(python, "generate_files", asked))

        return work

    ours, missing = conditions.python, {}
    contenders = [
        Contender(WRITE, turn(ours, "constant")),
        Contender("stoker gen, NPZ", turn(ours, "stoker")),
        Contender("NumPy + np.savez", turn(ours, "numpy")),
    ]
    python = conditions.peers.python("s3dlio")
    if python is None:
        missing["dgen-py"] = conditions.peers.missing["s3dlio"]
    else:
        contenders.append(Contender("dgen-py + write", turn(python, "dgen")))
    race(contenders, conditions.rounds, warm_rounds=0)
    return Contest("generation/files of 140 MiB", contenders, WRITE, f"{count} files.", missing)


def run(conditions: Conditions) -> list[Contest]:
    """Race both."""
    return [fills(conditions), files(conditions)]
