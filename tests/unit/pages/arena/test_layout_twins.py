"""The layout of the arena is written down twice, for Python and for C++: both say the same."""

import re
from enum import IntEnum
from pathlib import Path

import pytest

from stoker.pages.arena import layout
from stoker.pages.frames import (
    CREATE_RECORD,
    HEADER_BYTES,
    RUN_RECORD,
    STATE_RECORD,
    WAVE_RECORD,
    Codec,
    FrameType,
    PageState,
)

HEADER = Path(__file__).parents[4] / "native" / "src" / "arena_layout.hpp"


def enum_of(name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} : [\w:]+ {{(.*?)}};", HEADER.read_text(), re.S)
    assert body
    return {word: int(value) for word, value in re.findall(r"k(\w+) = (\d+)", body[1])}


def python_name(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Word", layout.Word),
        ("Counter", layout.Counter),
        ("Slot", layout.Slot),
        ("FrameType", FrameType),
        ("Codec", Codec),
        ("State", PageState),
    ],
)
def test_words_have_the_same_numbers(name: str, kind: type[IntEnum]) -> None:
    found = enum_of(name)
    assert len(found) >= 3
    assert found == {word: int(kind[python_name(word)]) for word in found}


def test_sizes_are_the_same() -> None:
    text = HEADER.read_text()
    constants = {word: int(value, 0) for word, value in re.findall(r"constexpr [\w:]+ k(\w+) = (0x\w+|\d+);", text)}
    assert constants["SlotBytes"] == layout.SLOT_BYTES
    assert constants["Skip"] == layout.SKIP
    assert constants["FrameHeaderBytes"] == HEADER_BYTES
    assert constants["CreateRecordBytes"] == CREATE_RECORD.size
    assert constants["RunRecordBytes"] == RUN_RECORD.size
    assert constants["WaveRecordBytes"] == WAVE_RECORD.size
    assert constants["StateRecordBytes"] == STATE_RECORD.size
    assert constants["SmallClasses"] == layout.SMALL_CLASSES == len(layout.CLASS_BYTES)
    assert constants["SmallBytesMax"] == layout.CLASS_BYTES[-1]
    sizes = [(64 if kind % 2 == 0 else 96) << kind // 2 for kind in range(layout.SMALL_CLASSES)]
    assert sizes == list(layout.CLASS_BYTES)
