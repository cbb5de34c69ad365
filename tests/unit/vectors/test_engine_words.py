"""What engines are asked and tell: indexes held against what was asked for, notes, names, places."""

import numpy as np
import pytest

from stoker.bench.run.vectors.places import check_name, packed_address, place_of
from stoker.core.errors import StokerError, UnknownNameError, UsageError
from stoker.core.vectors import IndexSpec, Recipe
from stoker.vectors.engine import CollectionFacts, check_index, engine_kind, index_parameters, require_same
from stoker.vectors.notes import fingerprint, note_of, read_note

ASKED = IndexSpec("HNSW", "COSINE", {"M": 64, "efConstruction": 200})


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (IndexSpec("HNSW", "COSINE", {"M": 16, "efConstruction": 200}), "M 16 instead of 64"),
        (IndexSpec("HNSW", "COSINE", {"efConstruction": 200}), "M nothing instead of 64"),
        (IndexSpec("FLAT", "COSINE", ASKED.parameters), "index FLAT instead of HNSW"),
        (IndexSpec("HNSW", "L2", ASKED.parameters), "metric L2 instead of COSINE"),
    ],
)
def test_an_index_that_is_not_the_one_asked_for_is_refused(found: IndexSpec, told: str) -> None:
    with pytest.raises(StokerError, match=told):
        require_same(ASKED, CollectionFacts("c", 10, 4, found))


def test_further_parameters_of_the_engine_are_no_difference() -> None:
    require_same(ASKED, CollectionFacts("c", 10, 4, IndexSpec("HNSW", "COSINE", {**ASKED.parameters, "ef": 9})))


def test_only_the_parameters_of_an_index_are_taken() -> None:
    told = {"M": 8, "efConstruction": 100, "max_degree": 64, "search_list_size": 200, "inline_pq": 16, "nlist": 7}
    assert index_parameters("HNSW", told) == {"M": 8, "efConstruction": 100}
    assert index_parameters("DISKANN", told) == {"max_degree": 64, "search_list_size": 200}
    assert index_parameters("AISAQ", told) == {"max_degree": 64, "search_list_size": 200, "inline_pq": 16}
    assert index_parameters("FLAT", told) == {}
    with pytest.raises(UsageError, match="unknown index"):
        index_parameters("TREE", told)


def test_a_collections_note_is_read_back_and_nothing_else_is_one() -> None:
    recipe = Recipe(100, 8, "normal", 4)
    note = read_note(note_of(recipe, ASKED, copy_of="x"))
    assert note is not None and (note.recipe, note.index, note.copy_of) == (recipe, ASKED, "x")
    for text in ("", "a collection", '{"schema": "stoker-vectors/1"}', note_of(recipe, ASKED)[:-1], "x" * 10_000):
        assert read_note(text) is None
    marks = {fingerprint(recipe, "L2", 100), fingerprint(recipe, "IP", 100), fingerprint(recipe, "L2", 99)}
    assert len(marks) == 3


def test_targets() -> None:
    told = place_of("milvus://db7:19531/shop")
    address = told.address
    assert (told.engine, address.host, address.port, address.database) == (
        "milvus",
        "db7",
        19531,
        "shop",
    )
    assert place_of("milvus://db7").address.port == 19530
    assert place_of("postgresql://h").address.port == 5432
    assert place_of("postgresql://%2FRun%2Fpg:7/x").address.host == "/Run/pg"
    lite = place_of("some/folder")
    assert (lite.engine, packed_address(lite.address)) == ("milvus-lite", "127.0.0.1:0|some/folder")


@pytest.mark.parametrize(
    ("target", "word"),
    [
        ("postgresql://ann:pw@h/x", "neither user nor password"),
        ("milvus://h:1/x?token=abc", "neither user nor password"),
        ("ftp://h", "no vector database"),
        ("milvus://h:port", "not the address"),
    ],
)
def test_targets_that_are_none(target: str, word: str) -> None:
    with pytest.raises(UsageError, match=word) as told:
        place_of(target)
    assert "pw" not in str(told.value) and "abc" not in str(told.value)


@pytest.mark.parametrize("name", ["", "1st", "a b", "a;drop table x", "ä", "x" * 64, "a-b"])
def test_names_that_no_database_takes(name: str) -> None:
    with pytest.raises(UsageError, match="not a collection's name"):
        check_name(name)


def test_engines_that_nobody_has_and_indexes_that_an_engine_has_not() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'pgvector'"):
        engine_kind("pgvectr")
    with pytest.raises(UsageError, match="engine pgvector has no index 'DISKANN'"):
        check_index(engine_kind("pgvector"), "pgvector", IndexSpec("DISKANN"))


def test_the_binary_form_of_pgvector() -> None:
    from stoker.vectors.engines.pgvector import packed, unpacked

    row = np.array([1.5, -2.0, 0.25], np.float32)
    assert packed(row) == bytes.fromhex("0003 0000 3fc00000 c0000000 3e800000".replace(" ", ""))
    assert np.array_equal(unpacked(packed(row)), row)
    for bad in (b"", b"\x00\x03\x00\x00", packed(row) + b"x"):
        with pytest.raises(StokerError, match="not a vector of pgvector"):
            unpacked(bad)
