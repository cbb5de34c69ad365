"""Row f: what the Loader delivers when storage costs nothing (`null://`), in one process: the harness's own ceiling."""

from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.harness import Contender, race
from benchmarks.peers import run_turn, turn_of
from stoker.core.units import GiB, KiB, MiB


def null_turn(object_bytes: int, samples_per_file: int, files: int, loader: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a turn of `stoker_epoch` on imagined raw files."""
    sample_bytes = object_bytes // samples_per_file
    spec = {"format": "raw", "files": files, "samples_per_file": samples_per_file, "record_dims": [sample_bytes]}
    spec["options"] = {"shape": [sample_bytes], "dtype": "uint8"}
    return {"url": f"null://?object_bytes={object_bytes}", "spec": spec, "loader": loader}


def contest(key: str, note: str, asked: dict[str, Any], conditions: Conditions) -> Contest:
    """Time our loader, which is its own ceiling here."""
    ours = Contender("stoker", lambda: turn_of(run_turn(conditions.python, "stoker_epoch", asked)))
    race([ours], conditions.rounds, warm_rounds=0)
    return Contest(key, [ours], note=note)


def run(conditions: Conditions) -> list[Contest]:
    """Time large samples and small ones."""
    whole_bytes = conditions.choose(8, 32, 64) * GiB
    large = {"batch_size": 32, "read_threads": 1, "decode_threads": 0}
    small = {"batch_size": 1024, "read_threads": 1, "decode_threads": 0}
    joined = null_turn(MiB, 256, whole_bytes // (8 * MiB), small)
    alone = null_turn(4 * KiB, 1, conditions.choose(20_000, 50_000, 500_000), small)
    big = null_turn(MiB, 1, whole_bytes // MiB, large)
    return [
        contest("null/1 MiB samples", "Raw, a sample an object, batch 32.", {**big, "epochs": 1}, conditions),
        contest("null/4 KiB samples", "Raw, 256 samples an object, batch 1,024.", {**joined, "epochs": 1}, conditions),
        contest("null/4 KiB objects", "Raw, a sample an object, batch 1,024.", {**alone, "epochs": 1}, conditions),
    ]
