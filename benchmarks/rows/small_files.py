"""Row c: one epoch over very many 100 KiB NPZ files from the page cache, beside PyTorch's DataLoader with np.load."""

from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.dataset import make_dataset
from benchmarks.harness import race
from benchmarks.rows.epochs import CEILING, Case, contenders_of
from stoker.core.plan import DatasetSpec
from stoker.core.units import KiB

RECORD_BYTES = 100 * KiB
BATCH = 64


def run(conditions: Conditions) -> list[Contest]:
    """Race on one dataset with one worker and with two."""
    files = conditions.files or conditions.choose(5_000, 20_000, 100_000)
    spec = DatasetSpec("npz", files, record_length_bytes=RECORD_BYTES)
    contests = []
    with conditions.folder(files * (RECORD_BYTES + 8 * KiB)) as folder:
        made = make_dataset(folder / "data", spec)
        for workers in (1, 2):
            case = Case(f"small files/npz 100 KiB, {workers} workers", spec, BATCH, 1, ("torch_stack",))
            contenders, missing = contenders_of(case, made, conditions.with_workers(workers))
            race(contenders, conditions.rounds, warm_rounds=0)
            note = f"{files:,} files, batch {BATCH}."
            contests.append(Contest(case.key, contenders, CEILING, note, missing))
    return contests
