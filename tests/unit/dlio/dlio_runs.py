"""Short ways to a configuration and a plan, for the tests beside."""

from pathlib import Path

from stoker.bench.run.dlio import DlioConfig, DlioRun, compose, resolve, to_plan


def config_of(*words: str, strict: bool = False) -> DlioConfig:
    """Resolve the only run of a command line."""
    runs = compose(list(words))
    assert len(runs) == 1
    return resolve(runs[0], strict=strict)


def run_of(*words: str, ranks: int = 1) -> DlioRun:
    """Plan the only run of a command line."""
    return to_plan(config_of(*words), ranks, moment_seconds=1_700_000_000.0, fresh_seed=99)


def workload_file(folder: Path, text: str, name: str = "mine") -> list[str]:
    """Write `workload/<name>.yaml` and return the words that choose it."""
    file = folder / "workload" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return [f"--config-dir={folder}", f"workload={name}"]
