"""YAML from strangers becomes plain data, or is refused in one sentence with its line."""

import pytest
import yaml

from stoker.core import plain_yaml
from stoker.core.errors import CorruptError
from stoker.core.plain_yaml import DEPTH_MAX, load_plain


@pytest.fixture(autouse=True, params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with both parsers."""
    if request.param == "python":
        monkeypatch.setattr(plain_yaml, "_LOADER", yaml.SafeLoader)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML was built without libyaml")


def test_data_is_plain() -> None:
    text = "a: 1\nb: [yes, ~, 1e-3, 2026-03-02, '5']\nc: &x {d: 0x10}\ne: *x\n"
    assert load_plain(text) == {
        "a": 1,
        "b": [True, None, 0.001, "2026-03-02", "5"],
        "c": {"d": 16},
        "e": {"d": 16},
    }


@pytest.mark.parametrize("text", ["", "# only a comment\n", "~"])
def test_nothing_is_none(text: str) -> None:
    assert load_plain(text) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!python/object:os.system x", "tags are not allowed"),
        ("a: 1\na: 2", "given twice"),
        ("<<: {a: 1}", "merge keys"),
        ("? [a]\n: 1", "not plain text"),
        ("a: *b", "'b'"),
        ("a: 1\n---\nb: 2", "more than one document"),
        ("[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), "nested too deeply"),
        ("a: [1", "not YAML"),
        ("a: \x00", "not YAML"),
        ("a: " + "9" * 5000, "not a number"),
    ],
)
def test_refused(text: str, told: str) -> None:
    with pytest.raises(CorruptError, match=r".") as error:
        load_plain(text)
    assert told in str(error.value)


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [1,1,1,1,1,1,1,1,1,1]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(CorruptError, match="out of proportion"):
        load_plain("\n".join(lines))


def test_aliases_that_deepen_are_refused() -> None:
    lines = ["a0: &a0 [1]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(CorruptError, match="nested too deeply"):
        load_plain("\n".join(lines))
