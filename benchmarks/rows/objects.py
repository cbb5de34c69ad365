"""Row e: object storage over S3: ours beside boto3 and s3dlio, as `python -m benchmarks.objects` measures it."""

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.harness import Contender, PeerError, Round

MODULE = "benchmarks.objects"
CEILING = "obstore"
SECONDS_MAX = 900


def run(conditions: Conditions) -> list[Contest]:
    """Run the command, and take its tables over. Raises PeerError when it fails or is not there."""
    if find_spec(MODULE) is None:
        raise PeerError(f"{MODULE} is not there")
    with tempfile.TemporaryDirectory(dir=conditions.scratch, prefix="stoker-bench-") as folder:
        command = [sys.executable, "-m", MODULE, "--out", folder, "--rounds", str(conditions.rounds)]
        command += ["--scratch", str(conditions.scratch)]
        python = conditions.peers.python("s3dlio")
        command += [f"--s3dlio-python={python}", f"--boto3-python={python}"] if python else []
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS_MAX)
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["no output"]
            raise PeerError(f"{MODULE} ended with {done.returncode}: {words[-1]}")
        documents = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    missing = {} if python else {"s3dlio, boto3": conditions.peers.missing["s3dlio"]}
    return [contest(title, rounds, missing) for document in documents for title, rounds in document["tables"].items()]


def contest(title: str, rounds: dict[str, list[dict[str, Any]]], missing: dict[str, str]) -> Contest:
    """Return a table that `harness.save` wrote as a contest; its ceiling is the client below ours, called directly."""
    contenders = [Contender(name, _never, [Round(**entry) for entry in kept]) for name, kept in rounds.items()]
    ceiling = next((name for name in rounds if name.startswith(CEILING)), "")
    return Contest(f"objects/{title}", contenders, ceiling, missing=missing)


def _never() -> Any:
    raise AssertionError("a table read from a file is not run again")
