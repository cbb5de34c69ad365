"""The page about the wire says what the code does."""

import re
from pathlib import Path

from stoker.fs.chunk import operations as ops
from stoker.fs.wire import frames, messages
from stoker.fs.wire.frames import FrameType

PAGE = (Path(__file__).parents[3] / "docs" / "design" / "fs_wire.md").read_text()


def rows(*heads: str) -> list[list[str]]:
    """The cells of the table with these heads."""
    table = PAGE.split("| " + " | ".join(heads) + " |\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_the_types_of_frames_are_told() -> None:
    told = rows("type", "name", "header", "sent by")
    assert [(int(number), name) for number, name, *_ in told] == [(kind.value, kind.name) for kind in FrameType]
    assert all(header == "none" or hasattr(messages, header) for _, _, header, _ in told)


def test_the_prefix_is_told() -> None:
    told = rows("bytes", "field", "meaning")
    places = [[int(number) for number in re.findall(r"\d+", cell)] for cell, *_ in told]
    assert [place[-1] + 1 for place in places[:-1]] == [place[0] for place in places[1:]]
    assert places[-1][-1] + 1 == frames.PREFIX_BYTES
    assert f"`{frames.MAGIC:#06x}`" in PAGE and f"{frames.PAYLOAD_BYTES_MAX:,} at most" in PAGE
    assert f"{frames.HELLO_BYTES_MAX:,} at most in a hello" in PAGE


def test_the_operations_are_told() -> None:
    told = rows("code", "name", "asks", "payload", "answer")
    wanted = [
        (f"{op.code:#x}", op.name, op.request_type.__name__, op.answer_type.__name__)
        for op in (*ops.CHUNK_OPERATIONS, ops.HEARTBEAT)
    ]
    assert [(code, name, asks, answer.split(",")[0]) for code, name, asks, _, answer in told] == wanted
    assert [bool(payload) for *_, payload, _ in told] == [
        op.payload_bytes_max > 0 for op in (*ops.CHUNK_OPERATIONS, ops.HEARTBEAT)
    ]
