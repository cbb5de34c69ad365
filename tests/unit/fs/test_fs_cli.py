"""`stoker fs`: what it refuses, what it prints. Its page's examples run as processes of their own in `tests/docs`."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stoker.cli.main import run
from stoker.fs.meta import keys
from stoker.fs.meta.engines.urls import open_engine

Stoker = Callable[..., tuple[int, str, str]]
VOLUME = "sqlite://volume.db"


@pytest.fixture
def stoker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Stoker:
    """Run a command in a folder of its own: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["fs", *words])
        told = capfd.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture
def volume(stoker: Stoker) -> str:
    """A small volume."""
    assert stoker("format", VOLUME)[0] == 0
    assert stoker("mkdir", VOLUME, "/a/b", "--parents")[0] == 0
    return VOLUME


def document(done: tuple[int, str, str]) -> Any:
    assert done[0] == 0, done
    return json.loads(done[1])


@pytest.mark.parametrize("url", [VOLUME, "lmdb://volume"])
def test_a_volume_of_each_engine_lives_on(url: str, stoker: Stoker) -> None:
    made = document(stoker("format", url, "--name", "first", "--json"))
    told = document(stoker("mkdir", url, "/data", "--mode", "2770", "--json"))
    assert told == {"path": "/data", "inode": 2}
    assert document(stoker("ln", url, "/nowhere", "/data", "--symbolic", "--json"))["path"] == "/data/nowhere"
    entries = document(stoker("ls", url, "/data", "--json"))["entries"]
    assert [(one["name"], one["target"], one["mode"]) for one in entries] == [("nowhere", "/nowhere", "lrwxrwxrwx")]
    told = document(stoker("info", url, "--json"))
    assert (told["uuid"], told["name"], told["inodes"]) == (made["uuid"], "first", 3)
    assert url.startswith(told["engine"])
    assert document(stoker("stat", url, "/data", "--json"))["uid"] == os.geteuid()
    assert document(stoker("mv", url, "/data", "/moved", "--json"))["target"] == "/moved"
    assert document(stoker("rm", url, "/moved", "--recursive", "--json"))["removed"] == 2
    told = document(stoker("fsck", url, "--json"))
    assert told == {"sound": True, "inodes": 1, "faults": [], "exit_code": 0}


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("format", VOLUME), 2, "taken"),
        (("ls", "sqlite://absent.db"), 2, "stoker fs format"),
        (("ls", "volume.db"), 2, "not the URL"),
        (("ls", "memory://x"), 2, "ends with the command"),
        (("ls", VOLUME, "/absent"), 1, "ENOENT"),
        (("mkdir", VOLUME, "/a"), 1, "EEXIST"),
        (("mkdir", VOLUME, "/x", "--mode", "9"), 2, "not octal"),
        (("rm", VOLUME, "/a"), 1, "ENOTEMPTY"),
        (("mv", VOLUME, "/a", "/a/b/c"), 1, "EINVAL"),
        (("mv", VOLUME, "/a", "/b", "--exchange", "--no-replace"), 2, "exclude each other"),
        (("mv", VOLUME, "/a", "/b", "--exchange"), 1, "ENOENT"),
        (("ln", VOLUME, "/a", "/c"), 1, "EPERM"),
        (("xattr", VOLUME, "/a", "--set", "user.x"), 2, "NAME=VALUE"),
        (("xattr", VOLUME, "/a", "--get", "user.x"), 1, "ENODATA"),
        (("xattr", VOLUME, "/a", "--get", "x", "--remove", "x"), 2, "exclude each other"),
    ],
)
def test_what_is_refused_is_one_sentence(
    volume: str, stoker: Stoker, words: tuple[str, ...], code: int, sentence: str
) -> None:
    done = stoker(*words)
    assert (done[0], done[1]) == (code, "")
    assert done[2].startswith("stoker: ")
    assert done[2].count("\n") == 1
    assert sentence in done[2]


def test_names_cannot_steer_a_terminal(volume: str, stoker: Stoker) -> None:
    stoker("mkdir", volume, "/\x1b[31mred\n")
    for words in (("ls", volume), ("ls", volume, "--json"), ("stat", volume, "/\x1b[31mred\n")):
        code, out, _ = stoker(*words)
        assert code == 0
        assert "\x1b" not in out
    assert len(stoker("ls", volume)[1].splitlines()) == 2


def test_a_broken_volume_has_an_exit_code_of_its_own(volume: str, stoker: Stoker) -> None:
    with open_engine(volume) as engine:
        engine.txn(None, {keys.attr_key(3): None})
    code, out, _ = stoker("fsck", volume)
    assert code == 3
    assert "faults" in out
    code, out, _ = stoker("fsck", volume, "--json")
    told = json.loads(out)
    assert (code, told["sound"], told["exit_code"]) == (3, False, 3)
    assert set(told["faults"][0]) == {"rule", "where", "expected", "got"}


def test_a_counter_that_cannot_be_read_is_a_fault_that_is_printed(volume: str, stoker: Stoker) -> None:
    with open_engine(volume) as engine:
        engine.txn(None, {keys.INODES: b"short"})
    code, out, _ = stoker("fsck", volume)
    assert code == 3
    assert "a counter is not readable" in out
    assert json.loads(stoker("fsck", volume, "--json")[1])["inodes"] is None


def test_a_link_that_points_nowhere_is_listed_itself(volume: str, stoker: Stoker) -> None:
    stoker("ln", volume, "nowhere", "/dangling", "--symbolic")
    stoker("ln", volume, "a", "/folder", "--symbolic")
    (one,) = document(stoker("ls", volume, "/dangling", "--json"))["entries"]
    assert (one["name"], one["target"]) == ("/dangling", "nowhere")
    assert [one["name"] for one in document(stoker("ls", volume, "/folder", "--json"))["entries"]] == ["b"]


def test_a_directory_is_not_removed_through_a_link(volume: str, stoker: Stoker) -> None:
    stoker("ln", volume, "a", "/folder", "--symbolic")
    code, _, err = stoker("rm", volume, "/folder/", "--recursive")
    assert (code, "ENOTDIR" in err) == (1, True)
    assert "a volume in memory" in stoker("ls", "MEMORY://x")[2]
    assert stoker("stat", volume, "/a/b")[0] == 0


def test_storage_classes_are_made_given_and_told(stoker: Stoker, volume: str) -> None:
    made = document(stoker("class", "make", volume, "cold", "8+4", "--cell", "64KiB", "--acknowledge", "all", "--json"))
    assert (made["id"], made["code"], made["small_bytes"], made["small_copies"]) == (1, "8+4", 32768, 5)
    assert document(stoker("class", "make", volume, "two", "2", "--json"))["small_copies"] == 0
    bare = document(stoker("class", "make", volume, "bare", "4+2", "--small", "0", "--json"))
    assert (bare["small_bytes"], bare["small_copies"]) == (0, 0)
    assert document(stoker("class", "set", volume, "/a", "cold", "--json")) == {"path": "/a", "storage_class": "cold"}
    assert stoker("mkdir", volume, "/a/c")[0] == 0
    assert document(stoker("class", "get", volume, "/a/c", "--json"))["storage_class"] == "cold"
    assert document(stoker("class", "get", volume, "/a/b", "--json"))["storage_class"] == "single"
    told = document(stoker("class", "list", volume, "--json"))["classes"]
    assert [one["name"] for one in told] == ["single", "cold", "two", "bare"]
    assert "cold" in stoker("class", "list", volume)[1] and "8+4" in stoker("class", "get", volume, "/a")[1]
    assert document(stoker("fsck", volume, "--json"))["sound"]


@pytest.mark.parametrize(
    "words",
    [
        ("make", VOLUME, "x", "8*4"), ("make", VOLUME, "x", "17+4"), ("make", VOLUME, "a b", "2"),
        ("make", VOLUME, "x", "8+4", "--cell", "5KB"), ("make", VOLUME, "x", "2", "--small-copies", "2"),
        ("set", VOLUME, "/a", "gold"),
    ],
)  # fmt: skip
def test_what_is_no_storage_class_is_refused(words: tuple[str, ...], stoker: Stoker, volume: str) -> None:
    code, out, error = stoker("class", *words)
    assert code == 2 and not out and error.count("\n") == 1, error


def test_a_storage_class_is_made_once(stoker: Stoker, volume: str) -> None:
    assert stoker("class", "make", volume, "pair", "2")[0] == 0
    code, _, error = stoker("class", "make", volume, "pair", "3")
    assert code == 1 and "EEXIST" in error
