"""However a tree is mangled, the judge comes to its end and gives findings: names, contents, kinds of files, depth."""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.bench.report.text import plain
from stoker.bench.rules.mlperf import judge_tree, judging, read_tree
from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said
from stoker.bench.rules.mlperf.layout import Series
from stoker.bench.rules.mlperf.telling import csv_text, judgement_dict
from stoker.testing.mlperf_trees import TreeMaker

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1e308, 10**30, "", "x" * 300, "\x1b[2J", "999", "NaN", "-5", "1e999"),
    *([], {}, [[]], [None], {"a": {"b": []}}, ["a", 3], "2026-03-02T10:00:00+99:99", "0001-01-01T00:00:00"),
)
ODD_BYTES: tuple[bytes, ...] = (
    *(b"", b"\x00", b"\xff\xfe", b"{", b"[" * 100_000, b"{}", b"[]", b"null", b'"text"', b"NaN", b"1e999"),
    *(b"a: &a [*a]", b"a: !!python/name:os.system", b"- " * 5000, b"? " * 300, b"'", b"a:\n\t- b", b"%YAML 9.9\n---\n"),
    b'{"a": 1, "a": 2}',
    b"&a [" * 30 + b"]" * 30,
)
ODD_NAMES: tuple[bytes, ...] = (b"\xff\xfe", b"a b", b"-rf", b"\n", b"x" * 200, b"20260302_999999", b"..a", b"\x1b[31m")


def _make(root: Path, family: str) -> None:
    edition = {"old": "2.0", "first": "1.0"}.get(family, "3.0")
    maker = TreeMaker(root, edition=edition)
    {
        "training": lambda: maker.training("closed", "sysA"),
        "checkpointing": lambda: maker.checkpointing("open", "sysA", "llama3-70b", hosts=8, split=True),
        "vectors": lambda: maker.vector_database("closed", "sysA"),
        "kv": lambda: maker.kv_cache("closed", "sysA"),
        "old": lambda: maker.training("open", "sysA", "unet3d", "h100"),
        "first": lambda: maker.v1_training("closed", "sysA"),
    }[family]()
    maker.finish()


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found = {}
    for family in ("training", "checkpointing", "vectors", "kv", "old", "first"):
        found[family] = tmp_path_factory.mktemp(family)
        _make(found[family], family)
    return found


def _entries(root: Path, chance: random.Random, *, folders: bool) -> Path:
    wanted = [path for path in sorted(root.rglob("*")) if not path.is_symlink() and path.is_dir() == folders]
    return chance.choice(wanted) if wanted else root


def _odd_value(root: Path, chance: random.Random) -> None:
    """Put odd values into a document, at several places at once."""
    found = [*sorted(root.rglob("*.json")), *sorted(root.rglob("*.yaml"))]
    documents = [path for path in found if path.is_file() and not path.is_symlink()]
    if not documents:
        return
    path = chance.choice(documents)
    try:
        is_json = path.suffix == ".json"
        document = json.loads(path.read_bytes()) if is_json else yaml.safe_load(path.read_bytes())
    except (ValueError, RecursionError, yaml.YAMLError):
        return
    path.write_text(json.dumps(_mangled(document, chance), allow_nan=True, default=str))


def _mangled(value: Any, chance: random.Random) -> Any:
    if chance.random() < 0.08:
        return chance.choice(ODD_VALUES)
    if isinstance(value, dict):
        return {key: _mangled(item, chance) for key, item in value.items() if chance.random() > 0.03}
    return [_mangled(item, chance) for item in value] if isinstance(value, list) else value


def _odd_content(root: Path, chance: random.Random) -> None:
    path = _entries(root, chance, folders=False)
    if path.is_file():
        path.write_bytes(chance.choice(ODD_BYTES))


def _flip(root: Path, chance: random.Random) -> None:
    path = _entries(root, chance, folders=False)
    data = bytearray(path.read_bytes()) if path.is_file() else bytearray()
    for _ in range(min(len(data), 5)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    if path.is_file():
        path.write_bytes(data[: chance.randrange(len(data) + 1)] if chance.random() < 0.5 else data)


def _remove(root: Path, chance: random.Random) -> None:
    path = _entries(root, chance, folders=chance.random() < 0.3)
    if path != root:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _rename(root: Path, chance: random.Random) -> None:
    path = _entries(root, chance, folders=chance.random() < 0.6)
    new = os.path.join(os.fsencode(path.parent), chance.choice(ODD_NAMES))
    if path != root and not os.path.lexists(new):
        os.rename(os.fsencode(path), new)


def _replace_by_other_kind(root: Path, chance: random.Random) -> None:
    path = _entries(root, chance, folders=chance.random() < 0.3)
    if path == root:
        return
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    kind = chance.randrange(5)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to(chance.choice(["/etc/passwd", "/", "..", str(path), "/dev/zero", "gone"]))
    elif kind == 2:
        path.mkdir()
    elif kind == 3:
        (path / "/".join("d" * 45)).mkdir(parents=True)
    else:
        path.write_bytes(b"x")


def _copy(root: Path, chance: random.Random) -> None:
    path = _entries(root, chance, folders=True)
    target = _entries(root, chance, folders=True) / chance.choice(
        ["run", "training", "20260401_000000", "sysB", "open"]
    )
    inside = path == root or path in (target, *target.parents)
    if not inside and not target.exists() and len(str(target)) < 1500:
        shutil.copytree(path, target, symlinks=True, ignore=lambda *_: _pipes(path))


def _pipes(path: Path) -> set[str]:
    return {each.name for each in path.rglob("*") if each.is_fifo()}


CHANGES: tuple[Callable[[Path, random.Random], None], ...] = (
    _odd_value,
    _odd_value,
    _odd_value,
    _odd_content,
    _flip,
    _remove,
    _rename,
    _replace_by_other_kind,
    _copy,
)


def assert_judged(root: Path, edition: str = "") -> None:
    """The judge ends, says something, and what it says can be printed, written as CSV and as JSON."""
    judgement = judge_tree(read_tree(root, edition=edition))
    assert judgement.answer in ("valid", "not_proven", "invalid")
    assert (judgement.answer == "invalid") == any(each.severity == "blocks" for each in judgement.findings)
    msgspec.json.encode(judgement_dict(judgement))
    csv_text(judgement).encode()
    for finding in judgement.findings:
        assert plain(finding.line).isprintable()
        assert not Path(finding.path).is_absolute()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    family=st.sampled_from(["training", "checkpointing", "vectors", "kv", "old", "first"]),
    seed=st.integers(0, 1 << 32),
    count=st.integers(1, 12),
)
def test_a_mangled_tree_gives_findings_and_never_a_crash(
    family: str, seed: int, count: int, trees: dict[str, Path]
) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        shutil.copytree(trees[family], root)
        for _ in range(count):
            chance.choice(CHANGES)(root, chance)
        assert_judged(root, chance.choice(["", "", "1.0", "2.0", "3.0"]))


def test_the_fuzzer_notices_a_careless_check(
    trees: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(series: Series, _: Context) -> Iterable[Said]:
        for leaf in series.runs:
            if leaf.summary is not None and leaf.summary["metric"]["train_au_mean_percentage"] < 50:
                yield Fault("low", "high", leaf.path)

    monkeypatch.setitem(judging.CHECKS, "3.3.2", Check("series", careless))
    noticed = set()
    for seed in range(60):
        chance = random.Random(seed)
        root = tmp_path / str(seed)
        shutil.copytree(trees["training"], root)
        for _ in range(8):
            chance.choice(CHANGES)(root, chance)
        try:
            assert_judged(root)
        except (KeyError, TypeError) as error:
            noticed.add(type(error))
        shutil.rmtree(root)
    assert noticed == {KeyError, TypeError}


@pytest.mark.parametrize("family", ["training", "checkpointing", "vectors", "kv", "old", "first"])
@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:20])
def test_odd_values_everywhere_at_once(family: str, value: Any, trees: dict[str, Path], tmp_path: Path) -> None:
    """Every leaf of every JSON document is the same odd value; the YAML ones hold it at their root."""
    root = tmp_path / "tree"
    shutil.copytree(trees[family], root)

    def everywhere(old: Any) -> Any:
        if isinstance(old, dict):
            return {key: everywhere(item) for key, item in old.items()}
        return [everywhere(item) for item in old] if isinstance(old, list) else value

    for path in root.rglob("*.json"):
        path.write_text(json.dumps(everywhere(json.loads(path.read_text()))))
    for path in root.rglob("*.yaml"):
        path.write_text(json.dumps({"workload": value}))
    assert_judged(root)


def test_the_root_is_odd_itself(tmp_path: Path) -> None:
    for content in ODD_BYTES:
        root = tmp_path / "odd"
        root.mkdir()
        (root / "summary.json").write_bytes(content)
        (root / "training_1_metadata.json").write_bytes(content)
        assert_judged(root)
        shutil.rmtree(root)
