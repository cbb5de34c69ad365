"""Rollups of every tree of the corpus: sound ones are judged as before, broken ones never break the writer."""

import csv
import json
import os
import shutil
from pathlib import Path

import mlperf_corpus_more
import pytest
from mlperf_corpus import CORPUS, Broken
from mlperf_places import BASES, Spot

from stoker.bench.report.submission import write_rollups
from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.rules.mlperf.documents import shipped_schema
from stoker.bench.rules.mlperf.validator import faults
from stoker.core.errors import StokerError

assert mlperf_corpus_more  # it fills the corpus


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def made(bases: Path, name: str, root: Path) -> Path:
    """Return a copy of the valid tree, which is made once."""
    if not (bases / name).exists():
        (bases / name).mkdir()
        BASES[name](bases / name)
    shutil.copytree(bases / name, root)
    return root


def sound(root: Path) -> None:
    for path in root.rglob("results.json"):
        document = json.loads(path.read_text())
        if isinstance(document, list) and all("Public ID" in row for row in document):
            assert faults(document, shipped_schema("results")) == [], path
            with path.with_suffix(".csv").open(newline="") as file:
                assert len(list(csv.DictReader(file))) == len(document)


@pytest.mark.parametrize("name", BASES)
def test_sound_tree_is_judged_as_before(name: str, bases: Path, tmp_path: Path) -> None:
    root = made(bases, name, tmp_path / "tree")
    before = judge_tree(read_tree(root)).answer
    write_rollups(root)
    assert judge_tree(read_tree(root)).answer == before
    sound(root)


@pytest.mark.parametrize("broken", CORPUS, ids=lambda broken: broken.name)
def test_broken_tree_gets_what_can_be_told_of_it(broken: Broken, bases: Path, tmp_path: Path) -> None:
    root = made(bases, broken.base, tmp_path / "tree")
    broken.spoil(Spot(root))
    try:
        write_rollups(root)
    except StokerError as error:
        assert str(error)
    sound(root)


def test_names_that_are_not_utf_8_get_a_row_and_an_id(bases: Path, tmp_path: Path) -> None:
    root = made(bases, "training", tmp_path / "tree")
    results = os.fsencode(root / "closed/example/results")
    os.rename(results + b"/sysA", results + b"/sys\xff")
    write_rollups(root)
    assert [row["Public ID"] for row in json.loads((root / "results.json").read_text())] == ["v3.0-0001"]
    write_rollups(root)
    assert list(json.loads((root / "public_ids.json").read_text())) == ["v3.0-0001"]
