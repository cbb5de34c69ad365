"""Hosts of one job: one release, one place behind the target's name."""

import os
from pathlib import Path

import msgspec

from stoker.bench.run.hosts.alike import FILES_MAX, SAME, Seen, compare, look

A = Seen("a", "1.0", "3.11.7", "f" * 64, "1" * 64)


def changed(host: str, **changes: str) -> Seen:
    return msgspec.structs.replace(A, host=host, **changes)


def test_hosts_that_are_alike_may_run_and_it_is_noted() -> None:
    assert compare([A, changed("b")]) == ("", [SAME])
    assert compare([A]) == ("", [])
    assert compare([changed("a", files="", inodes=""), changed("b", files="", inodes="")]) == ("", [])


def test_another_release_is_refused_with_both() -> None:
    reason, _ = compare([A, changed("b", version="0.9"), changed("c")])
    assert reason == "the hosts have different releases of stoker: 1.0 on a, 0.9 on b, 1.0 on c"


def test_other_files_are_refused_with_the_hosts() -> None:
    reason, _ = compare([A, changed("c"), changed("b", files="e" * 64)])
    assert reason == "the hosts have different files at the target: b and a"


def test_what_only_looks_the_same_is_noted() -> None:
    _, notes = compare([A, changed("b", inodes="2" * 64, python="3.12.1")])
    assert "3.12.1 on b" in notes[0] and "it was not shown that they read one place" in notes[1]


def test_a_copy_has_the_same_files_and_other_inodes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "train").mkdir(parents=True)
        (tmp_path / name / "train" / "x").write_bytes(b"1234")
    one, two = look(str(tmp_path / "one")), look(str(tmp_path / "two"))
    assert one.files == two.files and one.inodes != two.inodes
    assert look(str(tmp_path / "one")) == one
    (tmp_path / "two" / "train" / "x").write_bytes(b"12345")
    assert look(str(tmp_path / "two")).files != one.files
    assert look("s3://bucket/data").files == ""


def test_only_the_first_files_are_looked_at(tmp_path: Path) -> None:
    for number in range(FILES_MAX + 5):
        os.close(os.open(tmp_path / f"{number:05d}", os.O_CREAT | os.O_WRONLY))
    before = look(str(tmp_path))
    (tmp_path / f"{FILES_MAX + 4:05d}").write_text("x")
    assert look(str(tmp_path)) == before
