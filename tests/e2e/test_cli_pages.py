"""`stoker pages` as it is typed: on folders and in memory, on sound and damaged stores, with right and wrong words."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from cli_place import Place, obey_modes

from stoker.pages import Store

SMALL = {"size_bytes": 4 << 20, "pages_max": 512, "log_bytes": 1 << 17, "segment_bytes": 1 << 17}
LOOKS = (
    "ls bus",
    "stat bus",
    "log bus",
    "history bus weights",
    "diff bus mark:half",
    "replay bus --to mark:half",
    "verify bus",
)


def fill(store: Store, writes: int = 40) -> None:
    """Make a page of many versions and a derived one, over several segments of the log."""
    page = store.allocate(8192, name="weights")
    for index in range(writes):
        page.write(bytes([index + 1]) * 8192, source="trainer")
        if index == writes // 2:
            store.mark("half")
    store.allocate(64, name="notes")


@pytest.fixture
def bus(place: Place) -> Place:
    """A place with a store in the folder `bus`, which nobody has open."""
    with Store.open(place / "bus", **SMALL) as store:
        fill(store)
    return place


@pytest.fixture
def name() -> str:
    """The name of a store in memory that no other test has."""
    return f"e2e-{uuid4().hex}"


def python(script: str, place: Place) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script], cwd=place.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def alive(place: Place, name: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a store in memory; it ends when its standard input does."""
    script = f"""
import sys
from stoker.pages import Store
with Store.open(name={name!r}, size_bytes=1 << 20, log_bytes=1 << 17) as store:
    page = store.allocate(64, name="a")
    page.write(b"x" * 64, source="writer")
    print("ready", flush=True)
    for line in sys.stdin:
        page.write_at(0, line.encode())
"""
    with python(script, place) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()
    place.stoker("pages", "sweep")


# -- looking ---------------------------------------------------------------------------------------------------------


def test_looking_changes_nothing_in_a_folder_that_nobody_has_open(bus: Place) -> None:
    before = bus.tree("bus")
    for words in LOOKS:
        done = bus.stoker("pages", *words.split())
        assert done.code == 0, (words, done.errors)
        assert done.errors == ""
        assert bus.tree("bus") == before, words
    assert not list(Path("/dev/shm").glob(f"*{json.loads((bus / 'bus' / 'identity.json').read_text())['uuid']}*"))


def test_looking_needs_no_right_to_write(bus: Place) -> None:
    for path in [bus / "bus", *(bus / "bus").rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    for words in LOOKS[-2:]:
        done = bus.stoker("pages", *words.split(), prepare=obey_modes)
        assert done.code == 0, (words, done.errors)
    done = bus.stoker("pages", "checkpoint", "bus", prepare=obey_modes)
    assert done.code == 1
    assert "denied" in done.sentence
    for path in [bus / "bus", *(bus / "bus").rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.mark.slow
def test_every_command_prints_json(bus: Place) -> None:
    pages = bus.stoker("pages", "ls", "bus", "--json").document["pages"]
    assert [(row["name"], row["size_bytes"], row["epoch"]) for row in pages] == [
        ("weights", 8192, 40),
        ("notes", 64, 0),
    ]
    stats = bus.stoker("pages", "stat", "bus", "--json").document
    assert (stats["pages"], stats["page_bytes"], stats["processes"], stats["poisoned"]) == (2, 8256, 0, False)
    frames = bus.stoker("pages", "log", "bus", "--json").document["frames"]
    assert [row["lsn"] for row in frames] == list(range(1, 45))
    versions = bus.stoker("pages", "history", "bus", "weights", "--json").document["versions"]
    assert [row["epoch"] for row in versions] == list(range(41))
    assert {row["source"] for row in versions[1:]} == {"trainer"}
    change = bus.stoker("pages", "diff", "bus", "mark:half", "--json").document
    assert [row["name"] for row in change["created"]] == ["notes"]
    assert change["changed"][0]["changed_bytes"] == 8192
    assert bus.stoker("pages", "verify", "bus", "--json").document == {"lsn": 44, "wrong": []}
    assert bus.stoker("pages", "replay", "bus", "--json").document["lsn"] == 44
    assert bus.stoker("pages", "checkpoint", "bus", "--json").document["pages"] == 2
    assert bus.stoker("pages", "compact", "bus", "--json").document["floor_lsn_before"] > 1
    assert bus.stoker("pages", "ls", "--json").document.keys() == {"stores"}
    assert bus.stoker("pages", "sweep", "--json").document.keys() == {"removed"}
    done = bus.stoker("pages", "top", "bus", "--interval", "0.05", "--count", "2", "--json")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["commits_per_second"] for row in rows] == [0.0, 0.0]


def test_log_is_filtered_and_names_who_wrote(bus: Place) -> None:
    log = bus.stoker("pages", "log", "bus", "--source", "trainer", "--since", "3", "--limit", "2").out.splitlines()
    assert len(log) == 2
    assert all(line.endswith(" by trainer ;") for line in log)
    by_name = bus.stoker("pages", "log", "bus", "--page", "notes", "--json").document["frames"]
    by_id = bus.stoker("pages", "log", "bus", "--page", str(by_name[0]["page"]), "--json").document["frames"]
    assert [row["type"] for row in by_name] == ["CREATE"]
    assert by_name == by_id
    assert bus.stoker("pages", "log", "bus", "--source", "nobody").out == "no frames\n"


def test_names_cannot_steer_the_terminal(place: Place) -> None:
    with Store.open(place / "bus", **SMALL) as store:
        store.allocate(8, name="\x1b[31mred\nline").write(b"12345678", source="\x1b[2J")
        store.mark("\x1b[0m")
    for words in ("ls bus", "log bus", "diff bus 0", "history bus 1"):
        done = place.stoker("pages", *words.split())
        assert done.code == 0, done.errors
        assert "\x1b" not in done.out


# -- moments ---------------------------------------------------------------------------------------------------------


def test_replay_finds_moments_however_they_are_told(bus: Place) -> None:
    frames = bus.stoker("pages", "log", "bus", "--json").document["frames"]
    mark = next(row for row in frames if row["type"] == "MARK")
    by_mark = bus.stoker("pages", "replay", "bus", "--to", "mark:half", "--json").document
    assert by_mark["lsn"] == mark["lsn"]
    assert bus.stoker("pages", "replay", "bus", "--to", str(mark["lsn"]), "--json").document == by_mark
    epoch = bus.stoker("pages", "replay", "bus", "--to", "epoch:weights@21", "--json").document
    assert epoch["lsn"] == mark["lsn"] - 1
    assert epoch["digest"] == by_mark["digest"]
    page = frames[0]["page"]
    assert bus.stoker("pages", "replay", "bus", "--to", f"epoch:{page}@21", "--json").document == epoch
    last = bus.stoker("pages", "replay", "bus", "--json").document
    assert bus.stoker("pages", "replay", "bus", "--to", frames[-1]["time"], "--json").document == last
    assert bus.stoker("pages", "replay", "bus", "--to", "2999-01-01", "--json").document == last
    assert bus.stoker("pages", "replay", "bus", "--to", "2001-01-01T00:00Z", "--json").document["pages"] == 0


@pytest.mark.parametrize("text", ["yesterday", "mark:", "epoch:weights", "epoch:weights@x", "2026-13-01", "-"])
def test_a_moment_that_cannot_be_understood_is_wrong_use(bus: Place, text: str) -> None:
    bus.stoker("pages", "replay", "bus", "--to", text).refused(2, "moment cannot be understood", text, "mark:NAME")


@pytest.mark.parametrize("text", ["45", "mark:never", "epoch:weights@41"])
def test_a_moment_that_never_was_is_told(bus: Place, text: str) -> None:
    bus.stoker("pages", "replay", "bus", "--to", text).refused(1, "never reached", "its end at LSN 44")


def test_moments_that_are_gone_are_told(bus: Place) -> None:
    told = bus.stoker("pages", "compact", "bus", "--json").document
    assert told["floor_lsn"] > 30
    for text in ("5", "mark:half", "epoch:weights@3", "2001-01-01"):
        bus.stoker("pages", "replay", "bus", "--to", text).refused(1, "before what is kept", "expected", "or later")
        bus.stoker("pages", "diff", "bus", text).refused(1, "before what is kept")
    assert bus.stoker("pages", "replay", "bus", "--to", str(told["checkpoint_lsn"])).code == 0
    assert bus.stoker("pages", "replay", "bus", "--to", "epoch:weights@40").code == 0
    trainer = bus.stoker("pages", "log", "bus", "--source", "trainer", "--json").document["frames"]
    assert trainer, "the frame with the name is gone, the name is not"
    assert {row["source"] for row in trainer} == {"trainer"}


def test_what_replay_writes_can_be_opened(bus: Place) -> None:
    told = bus.stoker("pages", "replay", "bus", "--to", "mark:half", "--out", "deep/then", "--json").document
    with Store.restore(bus / "deep" / "then", size_bytes=1 << 20) as store:
        assert store.page("weights").epoch == 21
        assert store.lsn == told["lsn"]
    (bus / "file").write_text("x")
    assert bus.stoker("pages", "replay", "bus", "--out", "file").code == 1


# -- wrong words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["ls", "log", "verify", "checkpoint", "top"])
def test_what_is_no_store_is_refused_and_left_alone(place: Place, words: str) -> None:
    (place / "foreign").mkdir()
    (place / "foreign" / "notes").write_text("precious")
    (place / "empty").mkdir()
    (place / "file").write_text("x")
    before = place.tree()
    for where in ("foreign", "empty"):
        place.stoker("pages", words, where).refused(2, "folder holds no store of pages", where)
    for where in ("file", "missing"):
        place.stoker("pages", words, where).refused(2, "no store of pages is here", "stoker pages ls")
    assert place.tree() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("history bus wieghts", ("no page has this name 'wieghts'", "did you mean 'weights'?")),
        ("history bus 77", ("no page had this id '77'", "stoker pages ls bus")),
        ("log bus --page wieghts", ("no page has this name", "did you mean 'weights'?")),
        ("log bus --limit 0", ("--limit",)),
        ("log bus --since -1", ("--since",)),
        ("replay bus --to epoch:wieghts@1", ("no page has this name",)),
        ("checkpoint bus --keep 0", ("--keep",)),
        ("checkpoint bus --keep 1 --out x", ("--keep", "--out")),
        ("top bus --interval 0", ("interval must be positive", "got 0")),
        ("top bus --interval nan", ("interval must be positive",)),
        ("stat bus --json --prometheus", ("two ways",)),
        ("ls --system", ("--system", "STORE")),
        ("lst bus", ("no command of stoker pages 'lst'", "did you mean 'ls'?")),
    ],
)
def test_wrong_words_get_one_sentence(bus: Place, words: str, told: tuple[str, ...]) -> None:
    done = bus.stoker("pages", *words.split())
    assert done.code == 2
    for text in told:
        assert text in done.sentence


# -- damage ----------------------------------------------------------------------------------------------------------


def spoil(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(bytes(data))


def segments(place: Place) -> list[Path]:
    return sorted((place / "bus" / "log").iterdir())


def test_a_damaged_log_is_told_and_what_is_before_the_damage_is_shown(bus: Place) -> None:
    assert len(segments(bus)) > 1
    spoil(segments(bus)[0], 60_000)
    before = bus.tree("bus")
    for words in ("ls bus", "stat bus"):
        bus.stoker("pages", *words.split()).refused(1, "log is damaged before its end", "policy point_in_time")
    done = bus.stoker("pages", "verify", "bus")
    assert done.code == 3
    assert "log is damaged before its end" in done.out
    assert bus.stoker("pages", "verify", "bus", "--json").document["wrong"]
    done = bus.stoker("pages", "log", "bus", "--json")
    assert done.code == 1
    assert [row["lsn"] for row in done.document["frames"]][:3] == [1, 2, 3]
    assert "damaged" in done.document["wrong"] or "gap" in done.document["wrong"]
    assert bus.tree("bus") == before


def test_a_missing_segment_is_told(bus: Place) -> None:
    segments(bus)[0].unlink()
    bus.stoker("pages", "ls", "bus").refused(1, "LSN")
    assert bus.stoker("pages", "verify", "bus").code == 3


def test_a_torn_tail_is_no_damage_and_is_not_cut_by_looking(bus: Place) -> None:
    last = segments(bus)[-1]
    data = last.read_bytes()
    end = len(data.rstrip(b"\0"))
    last.write_bytes(data[: end + 16] + b"\xff" * 100 + data[end + 116 :])
    before = bus.tree("bus")
    assert bus.stoker("pages", "verify", "bus").out == "sound up to LSN 44\n"
    assert bus.tree("bus") == before


def test_a_damaged_checkpoint_is_told_and_passed_over(bus: Place) -> None:
    for _ in range(2):
        assert bus.stoker("pages", "checkpoint", "bus").code == 0
    newest = max((bus / "bus" / "checkpoints").iterdir())
    spoil(newest, 4096)
    done = bus.stoker("pages", "verify", "bus")
    assert done.code == 3
    assert newest.name in done.out
    assert bus.stoker("pages", "ls", "bus").code == 0


@pytest.mark.parametrize("text", ["", "{}", '{"version": 99}', "\xff"])
def test_a_damaged_identity_is_told(bus: Place, text: str) -> None:
    (bus / "bus" / "identity.json").write_text(text)
    done = bus.stoker("pages", "ls", "bus")
    assert done.code == 1
    assert "identity of the store cannot be read" in done.sentence


# -- in memory -------------------------------------------------------------------------------------------------------


def test_a_store_in_memory_is_found_by_its_name(place: Place, alive: subprocess.Popen[str], name: str) -> None:
    row = next(one for one in place.stoker("pages", "ls", "--json").document["stores"] if one["name"] == name)
    assert (row["pages"], row["page_bytes"], row["processes"], row["in_folder"]) == (1, 64, 1, False)
    assert name in place.stoker("pages", "ls").out
    assert " a\n" in place.stoker("pages", "ls", name).out
    assert place.stoker("pages", "stat", name, "--json").document["processes"] == 2
    assert "by writer" in place.stoker("pages", "history", name, "a").out
    assert "by writer" in place.stoker("pages", "log", name).out
    assert place.stoker("pages", "verify", name).out.startswith("sound")
    place.stoker("pages", "checkpoint", name).refused(2, "no folder for checkpoints", "--out")
    place.stoker("pages", "compact", name).refused(2, "no history to shorten")
    assert place.stoker("pages", "checkpoint", name, "--out", "saved").code == 0
    with Store.restore(place / "saved", size_bytes=1 << 20) as store:
        assert bytes(store.page("a").read()) == b"x" * 64


def test_top_shows_what_others_do_until_it_is_interrupted(
    place: Place, alive: subprocess.Popen[str], name: str
) -> None:
    top = place.start("pages", "top", name, "--interval", "0.1", "--json")
    assert alive.stdin is not None
    assert top.process.stdout is not None
    rows = []
    for index in range(300):
        alive.stdin.write(f"{index:08d}\n")
        alive.stdin.flush()
        rows.append(json.loads(top.process.stdout.readline()))
        if rows[-1]["commits_per_second"] > 0:
            break
    done, _ = top.stop(signal.SIGINT)
    assert rows[-1]["commits_per_second"] > 0
    assert rows[-1]["delta_bytes_per_second"] > 0
    assert done.code == 130
    assert "Traceback" not in done.errors


def test_top_ends_when_nobody_reads_it_any_more(bus: Place) -> None:
    done = bus.shell("stoker pages top bus --interval 0.05 | head -1")
    assert done.code == 0, done.errors
    assert done.out.split()[0] == "commits/s"


def test_looking_at_a_store_whose_processes_were_killed_leaves_it(
    place: Place, alive: subprocess.Popen[str], name: str
) -> None:
    alive.kill()
    alive.wait()
    for words in (["ls", name], ["verify", name], ["stat", name], ["checkpoint", name, "--out", "rescued"]):
        assert place.stoker("pages", *words).code == 0, words
    row = next(one for one in place.stoker("pages", "ls", "--json").document["stores"] if one["name"] == name)
    assert row["processes"] == 0
    assert f"removed {name}" in place.stoker("pages", "sweep").out
    place.stoker("pages", "ls", name).refused(2, "no store of pages is here")


def test_commits_of_a_killed_process_survive_every_way_of_looking(place: Place) -> None:
    script = f"""
import os, signal
from stoker.pages import Store
store = Store.open("bus", durability="none", **{SMALL!r})
store.allocate(64, name="a").write(b"only in shared memory".ljust(64))
print(store.name, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with python(script, place) as process:
        shared = process.communicate()[0].strip()
    assert "(of a folder)" in place.stoker("pages", "ls").out
    assert place.stoker("pages", "sweep").code == 0
    assert place.stoker("pages", "ls", shared).code == 0
    assert "epoch" in place.stoker("pages", "history", "bus", "a").out
    assert shared not in place.stoker("pages", "ls").out, "the last one left it at rest in its folder"
    with Store.open(place / "bus") as store:
        assert bytes(store.page("a").read()).startswith(b"only in shared memory")


def test_a_folder_that_is_open_is_joined(bus: Place) -> None:
    with Store.open(bus / "bus") as store:
        store.page("notes").write(b"n" * 64, source="here")
        assert bus.stoker("pages", "stat", "bus", "--json").document["processes"] == 2
        assert "by here" in bus.stoker("pages", "history", "bus", "notes").out
        assert bus.stoker("pages", "verify", "bus").code == 0
        assert bus.stoker("pages", "checkpoint", "bus").code == 0
        store.page("notes").write(b"m" * 64)
    assert store.name not in bus.stoker("pages", "ls").out


def test_damaged_pages_are_taken_out_of_use_and_healed(place: Place, name: str) -> None:
    def told(words: str, code: int = 0) -> str:
        done = place.stoker("pages", *words.split())
        assert done.code == code, done
        return done.out

    with Store.open(name=name, **{key: SMALL[key] for key in ("size_bytes", "pages_max", "log_bytes")}) as store:
        page = store.allocate(4096, name="weights")
        page.write(bytes(range(256)) * 16)
        store.arena.mapping.data[store.arena.facts(page.id).offset + 9] ^= 1
        assert "replay differs" in told(f"verify {name}", 3)
        assert "was put into quarantine" in told(f"verify {name} --quarantine", 3)
        assert "quarantined" in told(f"ls {name}")
        assert told(f"heal {name}") == f"healed page {page.id}\n"
        assert json.loads(told(f"heal {name} --json")) == {"healed": []}
        assert told(f"verify {name}").startswith("sound up to LSN")
        assert bytes(page.read()) == bytes(range(256)) * 16
        with page.edit():
            assert "dirty" in told(f"ls {name}")
