"""Where the peers live, which are missing, and how a turn is run by another interpreter."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import PeerError, Turn

TURNS = Path(__file__).parent / "turns"
TURN_SECONDS_MAX = 600
HOMES = {"dlio": "torch", "torch": "torch", "s3dlio": "s3dlio", "tensorflow": "tensorflow"}
"""Peer → the environment below `.tools/peers` that `scripts/peers.sh` makes for it."""

PROBES = {"dlio": "dlio_benchmark", "torch": "torch", "s3dlio": "s3dlio", "tensorflow": "tensorflow-cpu"}


@dataclass
class Peers:
    """The interpreters that have the peers, by name, and a sentence for each peer that is missing."""

    pythons: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def python(self, name: str) -> str | None:
        """Return the interpreter that has the peer, None when it is missing."""
        return self.pythons.get(name)


def find_peers(told: dict[str, str | None], root: Path = Path()) -> Peers:
    """Return the peers by the interpreters told, else those in `.tools/peers`; whoever is missing, with the remedy."""
    peers = Peers({})
    for name, home in HOMES.items():
        place = told.get(name) or str(root / ".tools/peers" / home / "bin/python")
        found = _version(place, PROBES[name])
        if found:
            peers.pythons[name], peers.versions[name] = str(Path(place).absolute()), found
        else:
            peers.missing[name] = f"{name} is not installed: scripts/peers.sh {home}"
    fio = shutil.which("fio")
    if fio:
        peers.pythons["fio"] = fio
        peers.versions["fio"] = subprocess.check_output([fio, "--version"], text=True).strip()
    else:
        peers.missing["fio"] = "fio is not installed: apt-get install fio"
    return peers


def _version(python: str, distribution: str) -> str:
    """Return the version of a distribution in another environment, empty when either is not there."""
    if not Path(python).is_file():
        return ""
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run_turn(python: str, script: str, arguments: dict[str, Any], **variables: str) -> dict[str, Any]:
    """Run a turn script in a fresh process; return what it printed. Raises PeerError with its last words."""
    command = [python, str(TURNS / f"{script}.py"), json.dumps(arguments)]
    environment = {**os.environ, **variables}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TURN_SECONDS_MAX, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{script} took more than {TURN_SECONDS_MAX} s") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        words = done.stderr.strip().splitlines() or ["no output"]
        raise PeerError(f"{script} ended with {done.returncode}: {words[-1]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def turn_of(result: dict[str, Any]) -> Turn:
    """Return the turn that a script's result tells."""
    return Turn(**{name: result[name] for name in Turn.__dataclass_fields__})
