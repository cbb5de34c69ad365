"""The page about the format says what the code says: the tables in the modules' docstrings stand in it as they are."""

import importlib
from pathlib import Path

import pytest

from stoker.pages.frames import Codec, FrameType, Location, PageState

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "pages_format.md").read_text().splitlines()
MODULES = (
    "frames",
    "journal.segments",
    "history.checkpoint",
    "wire",
    "wire_codecs",
    "delta_bytes",
    "arena.layout",
)


@pytest.mark.parametrize("name", MODULES)
def test_every_row_of_the_modules_tables_is_in_the_guide(name: str) -> None:
    told = importlib.import_module(f"stoker.pages.{name}").__doc__ or ""
    rows = [line.strip() for line in told.splitlines() if line.strip().startswith("|")]
    assert len(rows) > 3
    assert [row for row in rows if row not in GUIDE] == []


def test_every_number_has_its_name() -> None:
    for number in range(13):
        names = [
            next((one.name for one in kind if one == number), "") for kind in (FrameType, Codec, PageState, Location)
        ]
        row = f"| {number} | " + " | ".join(names) + " |"
        assert row in GUIDE
