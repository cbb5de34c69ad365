"""One row gives parsing, checks and the origin of a value; precedence is flag, environment, file, preset, default."""

import pytest

from stoker.core.errors import UsageError
from stoker.core.options import Option, Setting, resolve

ROWS = (
    Option("read_threads", "int", "Readers.", default=4, low=1, high=64),
    Option("size", "bytes", "Size."),
    Option("order", "text", "Order.", default="shuffled", choices=("shuffled", "sequential")),
    Option("evict", "flag", "Evict.", default=True),
    Option("label", "text", "Label.", many=True),
)


@pytest.mark.parametrize(
    ("flags", "environment", "file", "expected"),
    [
        ({"read_threads": "8"}, {"STOKER_READ_THREADS": "9"}, {"read_threads": 10}, Setting(8, "flag")),
        ({}, {"STOKER_READ_THREADS": "9"}, {"read_threads": 10}, Setting(9, "env")),
        ({}, {}, {"read_threads": 10}, Setting(10, "file")),
        ({}, {}, {}, Setting(4, "default")),
    ],
)
def test_the_nearest_layer_wins(flags, environment, file, expected) -> None:
    assert resolve(ROWS, flags=flags, file=file, environment=environment)["read_threads"] == expected


def test_a_preset_beats_the_default_only() -> None:
    assert resolve(ROWS, flags={}, preset={"size": 5}, environment={})["size"] == Setting(5, "preset")


@pytest.mark.parametrize(
    ("name", "raw", "words"),
    [
        ("read_threads", "0", "at least 1"),
        ("read_threads", "65", "at most 64"),
        ("read_threads", "many", "--read-threads"),
        ("read_threads", 1.5, "whole number"),
        ("size", "4 parsecs", "for example 4KiB"),
        ("order", "shufled", "did you mean 'shuffled'"),
        ("evict", "perhaps", "true or false"),
    ],
)
def test_a_bad_value_names_the_option_and_the_rule(name, raw, words) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(ROWS, flags={name: raw}, environment={})


def test_an_unknown_key_in_a_file_is_named_with_its_neighbour() -> None:
    with pytest.raises(UsageError, match=r"'read_threds'.*did you mean 'read_threads'"):
        resolve(ROWS, flags={}, file={"read_threds": 3}, environment={})


def test_repeated_values_are_collected() -> None:
    assert resolve(ROWS, flags={"label": ("a=1", "b=2")}, environment={})["label"].value == ["a=1", "b=2"]
    assert resolve(ROWS, flags={"label": ()}, environment={})["label"].origin == "default"
