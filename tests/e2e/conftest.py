"""A fresh place for every test, and a dataset that tests may read but not change."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_place import COSMOFLOW, QUICK, Place


@pytest.fixture(scope="session", autouse=True)
def default_signals() -> Iterator[None]:
    """Commands start as from a terminal, even where the tests were started with signals ignored."""
    ignored = [n for n in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder to run commands in."""
    return Place(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of ours, made once; nobody writes to it."""
    return Place(tmp_path_factory.mktemp("made")).make("data")


@pytest.fixture
def data(made: Path, place: Place) -> Path:
    """A copy of the small dataset that the test may spoil, at `data` in its place."""
    return Path(shutil.copytree(made, place / "data"))


@pytest.fixture(scope="session")
def finished(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, made once; nobody writes to it."""
    place = Place(tmp_path_factory.mktemp("finished"))
    done = place.stoker("run", "training", str(made), *COSMOFLOW, *QUICK, "--epochs", "1", "--json")
    assert done.document["status"] == "complete"
    return place.folder / done.document["folder"]


@pytest.fixture
def saved(finished: Path, place: Place) -> Path:
    """A copy of the finished run that the test may spoil, at `saved` in its place."""
    return Path(shutil.copytree(finished, place / "saved"))
