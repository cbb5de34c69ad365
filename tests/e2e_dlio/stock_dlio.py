"""DLIO itself, from an environment of its own that `STOKER_DLIO_PYTHON` names."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from dlio_commands import CONFIG_FOLDER, WRAPPER_WORDS, Done, Place, run

VARIABLE = "STOKER_DLIO_PYTHON"
SETUP = (
    "python -m venv dlio; dlio/bin/pip install mpich torch "
    "'dlio_benchmark @ git+https://github.com/argonne-lcf/dlio_benchmark.git@e1919d7'; "
    f"export {VARIABLE}=$PWD/dlio/bin/python"
)
needs_stock = pytest.mark.skipif(
    not os.environ.get(VARIABLE), reason=f"{VARIABLE} does not name the Python of a DLIO; to set one up: {SETUP}"
)
STEPS_LINE = "steps completed in"


def stock_python(place: Place, *words: str) -> Done:
    """Run DLIO's Python with `words`; its own programs come first in PATH."""
    python = os.environ[VARIABLE]
    variables = {"PATH": f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"}
    return run([python, *words], place.folder, variables)


def stock(place: Place, *words: str) -> Done:
    """Run DLIO as MLPerf's wrapper words it."""
    command = ["-m", "dlio_benchmark.main", *words, *WRAPPER_WORDS, f"--config-dir={CONFIG_FOLDER}"]
    done = stock_python(place, *command)
    assert done.code == 0, done.out[-3000:] + done.errors[-3000:]
    return done


def resolved(place: Place, script: str, *words: str) -> Any:
    """Return what a script prints as JSON in its last line, run by DLIO's Python."""
    done = stock_python(place, "-c", script, *words)
    assert done.code == 0, done.errors[-3000:]
    return json.loads(done.out.splitlines()[-1])
