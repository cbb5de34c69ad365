"""The value grammar of overrides."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.bench.run.dlio.values import parse_value, split_choices
from stoker.core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8),
        ("-3", -3),
        ("1_000", 1000),
        ("007", "007"),
        ("0x10", "0x10"),
        ("1e-3", 0.001),
        ("2.5E2", 250.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("inf", math.inf),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("on", "on"),
        ("null", None),
        ("NULL", None),
        ("", ""),
        ("  7 ", 7),
        ("text", "text"),
        ("two words", "two words"),
        ("./data/unet3d", "./data/unet3d"),
        ("s3://bucket/prefix?retry_attempts=3", "s3://bucket/prefix?retry_attempts=3"),
        ("'1'", "1"),
        ('"a, b"', "a, b"),
        (r"'it\'s'", "it's"),
        (r'"back\\"', "back\\"),
        (r"'C:\data'", r"C:\data"),
        (r"a\,b", "a,b"),
        ("${workload.model.name}", "${workload.model.name}"),
        ("[]", []),
        ("[1, 2 ,x]", [1, 2, "x"]),
        ("[[1],[2,3]]", [[1], [2, 3]]),
        ("{}", {}),
        ("{type:normal,mean:1.0}", {"type": "normal", "mean": 1.0}),
        ("{a: {b: [1,null]}, 'c d': x}", {"a": {"b": [1, None]}, "c d": "x"}),
    ],
)
def test_values_are_read_as_hydra_reads_them(text: str, value: Any) -> None:
    got = parse_value(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a,b", "--multirun"),
        ("[a", "the end"),
        ("[", "missing"),
        ("[a,,b]", "missing"),
        ("a]", "quotes"),
        ("{a}", "':'"),
        ("{:1}", "key is missing"),
        ("{a:1,a:2}", "twice"),
        ("'open", "not closed"),
        ("${open", "not closed"),
        ("range(1,3)", "functions"),
        ("[" * 40, "nested"),
        ("9" * 5000, "too long"),
        ("x" * (2 << 20), "too long"),
        ("'a'b", "cannot be read"),
    ],
)
def test_what_is_no_value_is_refused_in_one_sentence(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told.replace("-", "[-]")) as caught:
        parse_value(text)
    assert len(str(caught.value)) < 400 or len(text) > 400
    assert "\n" not in str(caught.value)


def test_a_sweep_is_split_at_the_outer_commas_only() -> None:
    assert split_choices("1, [2,3] ,'a,b',{k:v,l:w}") == ["1", "[2,3]", "'a,b'", "{k:v,l:w}"]
    assert split_choices("7") == ["7"]


def written(value: Any) -> str:
    """Write a value in the grammar: the inverse of reading."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(item) for item in value) + "]"
    if isinstance(value, str):
        out, backslashes = "", 0
        for sign in value:
            if sign == "'":
                out += "\\" * backslashes + "\\'"
            else:
                out += sign
            backslashes = backslashes + 1 if sign == "\\" else 0
        return "'" + out + "\\" * backslashes + "'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
)
KEYS = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_every_value_survives_writing_and_reading(value: Any) -> None:
    assert parse_value(written(value)) == value


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_a_value_or_one_sentence(text: str) -> None:
    try:
        parse_value(text)
    except UsageError as error:
        assert str(error)
