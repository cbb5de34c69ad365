"""`stoker mlperf … vectordb`: what is refused, what a dry run tells, and what the engine is asked."""

from pathlib import Path
from typing import Any

import pytest

from stoker.bench.run.mlperf.prepare import Prepared, prepare
from stoker.bench.run.mlperf.resolving import Place, resolve_invocation
from stoker.bench.run.mlperf.results_dir import initialise
from stoker.bench.run.mlperf.vector_configs import CONFIGS
from stoker.bench.run.mlperf.vectors import storage_place, target_of, vector_arguments
from stoker.bench.run.vectors.places import place_of, placed
from stoker.cli.main import run
from stoker.core.errors import UsageError

RUN = ("closed", "vectordb", "DISKANN", "run", "file")
MAKE = ("open", "vectordb", "HNSW", "datagen", "file")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, value in (("RESULTS_DIR", tmp_path / "results"), ("SYSTEMNAME", "sysA")):
        monkeypatch.setenv(f"MLPSTORAGE_{name}", str(value))
    initialise(tmp_path / "results", "acme")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((*RUN, "--port", "9", "--collection", "c"), 1, "no database answers '127.0.0.1:9'"),
        ((*RUN, "--port", "9"), 2, "which collection is searched is not told"),
        ((*RUN, "--collection", "a b"), 2, "not a collection's name"),
        ((*RUN, "--runtime", "5", "--queries", "5"), 2, "--runtime and --queries"),
        ((*RUN, "--benchmark-mode", "query_count"), 2, "query_count without a count"),
        ((*RUN, "--npernode", "2"), 2, "--npernode is for several clients; add --distributed"),
        ((*RUN, "--vdb-engine", "pgvector"), 2, "pgvector"),
        ((*RUN, "--port", "9", "--collection", "c", "--storage-root", "none"), 6, "storage root is no folder"),
        ((*MAKE, "--config", "10m_diskann"), 2, "--config is for another index"),
        ((*MAKE, "--config", "10m_hsnw"), 2, "did you mean '10m_hnsw'"),
        ((*MAKE, "--vector-dtype", "BINARY_VECTOR"), 2, "FLOAT_VECTOR"),
        ((*MAKE, "--vdb-engine", "elasticsearch"), 2, "no vector engine 'elasticsearch'"),
        ((*MAKE, "--vdb-engine", "milvus-lite"), 2, "--storage-root"),
    ],
)
def test_what_is_wrong_is_told(
    words: tuple[str, ...], code: int, told: str, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = run(["mlperf", *words])
    errors = capfd.readouterr().err
    assert told in errors and "Traceback" not in errors
    assert found == code or (code == 6 and found not in (0, 2))


def prepared(home: Path, division: str, index: str, command: str, **given: Any) -> Prepared:
    flags = {"results_dir": str(home / "results"), "systemname": "sysA", **given}
    return prepare(resolve_invocation(Place(division, "vectordb", index, command, "file"), flags, {}), {})


def test_the_engine_is_asked_what_was_asked(home: Path) -> None:
    made = prepared(home, "open", "HNSW", "datagen", config="1m_hnsw", num_vectors=5000, force=True, compact=True)
    words = vector_arguments(made, home / "evidence")
    assert words[:3] == ["run", "vectordb", "milvus://127.0.0.1:19530/"]
    wanted = {"--vectors=5000", "--dimension=1536", "--m=64", "--ef-construction=200", "--load=only", "--force",
              "--compact", "--insert-batch=1000", "--metric=COSINE", "--distribution=uniform",
              "--collection=mlps_5000_1shards_1536dim_uniform_hnsw"}  # fmt: skip
    assert wanted <= set(words)
    ran = prepared(home, "closed", "DISKANN", "run", collection="mine", search_ef=77, runtime=12.5, port=7,
                   num_query_processes=3, distributed=True, npernode=2, report_count=9)  # fmt: skip
    words = vector_arguments(ran, home / "evidence")
    wanted = {"--collection=mine", "--search-ef=77", "--duration=12.5s", "--processes=6", "--load=never",
              "--gt-collection=mine_flat_gt", "--report-count=9", f"--run-folder={home / 'evidence'}"}  # fmt: skip
    assert words[2] == "milvus://127.0.0.1:7/" and wanted <= set(words)
    assert ran.invocation.ranks == 6
    swept = prepared(home, "open", "HNSW", "run", collection="mine", benchmark_mode="sweep")
    assert "--sweep=0.95" in vector_arguments(swept, home / "evidence")


def test_a_storage_root_is_a_folder_or_none(home: Path) -> None:
    told = prepared(home, "closed", "DISKANN", "run", collection="c", storage_root="x")
    assert told.target.folder == str(home / "x")
    for more in ({"storage_root": "s3://b/x"}, {"storage_root": "x", "storage_type": "object"}, {}):
        assert storage_place(prepared(home, "closed", "DISKANN", "run", collection="c", **more).invocation) is None


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_set_what_nobody_gave(name: str, home: Path) -> None:
    index, values = CONFIGS[name]
    made = prepared(home, "open", index or "HNSW", "datagen", config=name, num_vectors=3)
    assert made.invocation.value("num_vectors") == 3
    assert made.invocation.value("dimension") == values["dimension"]
    ran = prepared(home, "open", index or "HNSW", "run", config=name, collection="c")
    assert (ran.invocation.value("vector_dim"), ran.invocation.value("batch_size")) == (values["dimension"], 1)


@pytest.mark.parametrize(
    "found",
    [
        placed("milvus", "db", 5, database="x"),
        placed("pgvector", "/run/pg", 5432, database="postgres"),
        placed("milvus-lite", "", None, folder="a folder/b"),
    ],
)
def test_targets_come_back(found: Any) -> None:
    assert place_of(target_of(found)) == found


def test_a_configuration_of_another_index_is_refused(home: Path) -> None:
    with pytest.raises(UsageError, match="another index"):
        prepared(home, "open", "HNSW", "datagen", config="1m_aisaq_512")
