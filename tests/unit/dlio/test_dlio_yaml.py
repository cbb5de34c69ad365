"""YAML from strangers."""

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.bench.run.dlio.tree import find, plain
from stoker.bench.run.dlio.yaml_text import FILE_BYTES_MAX, load_file, load_text
from stoker.core.errors import StokerError, UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        ("5", 5),
        ("1_000", 1000),
        ("0.00350", 0.0035),
        (".5", 0.5),
        (".inf", math.inf),
        ("True", True),
        ("false", False),
        ("yes", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-31", "2024-01-31"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("plain words", "plain words"),
        ("[1, two, 3.0]", [1, "two", 3.0]),
        ("[{name: a, size: 2}]", [{"name": "a", "size": 2}]),
        ("s3://bucket/x", "s3://bucket/x"),
        ("./data/", "./data/"),
    ],
)
def test_scalars_are_read_as_omegaconf_reads_them(text: str, value: Any) -> None:
    got = plain(load_text(f"key: {text}", "a.yaml"))["key"]
    assert got == value
    assert type(got) is type(value)


def test_a_truth_word_keeps_its_text() -> None:
    leaf = find(load_text("reader:\n  file_shuffle: off\n", "a.yaml"), ("reader", "file_shuffle"))
    assert (leaf.value, leaf.text, leaf.origin.where) == (False, "off", "a.yaml:2")


def test_an_alias_in_moderation_is_followed() -> None:
    tree = load_text("a: &one {x: 1}\nb: *one\nc: [*one, *one]\n", "a.yaml")
    assert plain(tree) == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
LADDER = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {'{b: ' * 10}*a{n - 1}{'}' * 10}\n" for n in range(1, 120))
HOSTILE = {
    "aliases on aliases": (LADDER, "nested"),
    "billion laughs": (LAUGHS, "out of proportion"),
    "python object": ("a: !!python/object/apply:os.system ['id']", "tags"),
    "python name": ("a: !!python/name:os.system ''", "tags"),
    "own tag": ("a: !evil x", "tags"),
    "harmless tag": ("a: !!str 1", "tags"),
    "tag of a mapping": ("a: !!map {b: 1}", "tags"),
    "tag of a key": ("!!str a: 1", "not plain text"),
    "deep flow": ("a: " + "[" * 200, "nested"),
    "deep mappings": ("a: " + "{b: " * 200, "nested"),
    "recursive alias": ("a: &a [*a]", "names nothing"),
    "unknown alias": ("a: *nobody", "nobody"),
    "key twice": ("a: 1\nb: 2\na: 3", "twice"),
    "nested key twice": ("a:\n  x: 1\n  x: 2", "twice"),
    "merge key": ("b: &b {x: 1}\na:\n  <<: *b", "merge"),
    "list as key": ("? [1, 2]\n: x", "not plain text"),
    "two documents": ("a: 1\n---\nb: 2", "more than one"),
    "a list": ("- a\n- b", "not a mapping"),
    "a word": ("hello", "not a mapping"),
    "broken": ("a: [1, 2\nb: }", "not YAML"),
    "tab": ("a:\n\t- b", "not YAML"),
    "control character": ("a: \x07", "not YAML"),
    "endless number": ("a: " + "9" * 6000, "not a number"),
    "bad binary number": ("a: 0b_", "not a number"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_with_its_place(name: str) -> None:
    text, told = HOSTILE[name]
    with pytest.raises(UsageError, match=told) as caught:
        load_text(text, "bad.yaml")
    assert "bad.yaml" in str(caught.value)


def test_the_line_of_the_trouble_is_told() -> None:
    with pytest.raises(UsageError, match=r"bad\.yaml:3"):
        load_text("a: 1\nb:\n  c: !tag x\n", "bad.yaml")


def test_files_are_bounded_and_must_be_text(tmp_path: Path) -> None:
    big, binary, empty = tmp_path / "big.yaml", tmp_path / "binary.yaml", tmp_path / "empty.yaml"
    big.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    binary.write_bytes(b"a: \xff\xfe")
    empty.write_bytes(b"# nothing\n")
    with pytest.raises(UsageError, match="too large"):
        load_file(big)
    with pytest.raises(UsageError, match="UTF-8"):
        load_file(binary)
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        load_file(tmp_path / "missing.yaml")
    with pytest.raises(UsageError, match="not a file"):
        load_file(Path("/dev/zero"))
    assert load_file(empty) == {}


@given(st.text(alphabet="ab:-[]{}&*!|>'\"%@`, \n\t#?~0.e<", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_a_mapping_or_one_of_our_errors(text: str) -> None:
    try:
        assert isinstance(load_text(text, "any.yaml"), dict)
    except StokerError as error:
        assert "any.yaml" in str(error)
