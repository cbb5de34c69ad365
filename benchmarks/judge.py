"""How long does it take to judge a large submission? 150 results with 1,000 leaves, by CPU time.

The tree is made first, which does not count; then it is read and judged by every rule, a few rounds, each from the
start. The files are in the page cache after the making: this measures the judge, not the disk under the tree.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from stoker.bench.rules.mlperf import Judgement, judge_tree, read_tree
from stoker.testing.mlperf_trees import TreeMaker

TRAINING, VECTORS, SPLIT_CHECKPOINTS, CHECKPOINTS, KV = 96, 28, 10, 6, 10
GOAL_SECONDS = 10.0


def make(root: Path) -> None:
    """Make the tree: 96 x 8 + 28 x 7 + 10 x 2 + 6 + 10 leaves of 150 results."""
    maker = TreeMaker(root)
    for number in range(TRAINING // 2):
        maker.training("closed", f"system{number:03d}")
        maker.training("closed", f"system{number:03d}", "retinanet", "b200")
    for number in range(VECTORS):
        maker.vector_database("closed", f"system{number:03d}")
    for number in range(SPLIT_CHECKPOINTS):
        maker.checkpointing("closed", f"system{number:03d}", "llama3-70b", hosts=8, split=True)
    for number in range(CHECKPOINTS):
        maker.checkpointing("closed", f"system{number:03d}")
    for number in range(KV):
        maker.kv_cache("closed", f"system{number:03d}", hosts=4)
    maker.finish()


def judged(root: Path) -> tuple[float, float, Judgement]:
    """Return the CPU and wall seconds of one reading and judging, and the judgement."""
    cpu, wall = time.process_time(), time.perf_counter()
    judgement = judge_tree(read_tree(root))
    return time.process_time() - cpu, time.perf_counter() - wall, judgement


def main() -> None:
    """Make, judge, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.judge", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        make(root)
        files = sum(1 for path in root.rglob("*") if path.is_file())
        turns = [judged(root) for _ in range(rounds)]
    judgement = turns[-1][2]
    cpu = statistics.median(turn[0] for turn in turns)
    wall = statistics.median(turn[1] for turn in turns)
    print(f"{judgement.results} results, {judgement.leaves} leaves, {files} files: {judgement.answer}")
    print(f"median of {rounds}: {cpu:.2f} s of CPU time, {wall:.2f} s; the goal is {GOAL_SECONDS:g} s")


if __name__ == "__main__":
    main()
