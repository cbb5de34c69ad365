"""A results directory with journalled runs, for tests."""

from pathlib import Path

from stoker.bench.run.mlperf.journal import begin, end
from stoker.bench.run.mlperf.results_dir import ResultsDir, initialise


def made_results(folder: Path) -> ResultsDir:
    """Return a new results directory of `acme`."""
    return initialise(folder / "results", "acme")


def run_of(
    results: ResultsDir,
    stamp: str,
    *,
    code: int | None = 0,
    model: str = "unet3d",
    words: tuple[str, ...] = ("mlperf", "closed"),
    image: str = "",
) -> str:
    """Journal a run of training with a leaf of one file, and its evidence; return its id. No code, no end."""
    leaf = results.leaf("closed", "sysA", "training", model, "run", stamp)
    leaf.mkdir(parents=True)
    (leaf / "summary.json").write_text('{"metric": {"train_au_mean_percentage": 97.4, "train_au_percentage": [97.4]}}')
    if image:
        (leaf / ".mlps-code-image").write_text(f"{image}\n")
    facts = {"division": "closed", "family": "training", "model": model, "command": "run", "system": "sysA"}
    run = begin(results, words, leaf=leaf, **facts)
    evidence = results.evidence(stamp, "training", model, run)
    evidence.mkdir(parents=True)
    (evidence / "result.json").write_text("{}")
    if code is not None:
        end(results, run, exit_code=code, seconds=12.5)
    return run
