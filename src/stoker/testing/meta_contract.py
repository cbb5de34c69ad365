"""What every engine of the file system's metadata must do, as tests.

Subclass `MetaEngineContract` in a test module and supply `url`; an engine that survives its process also says so, and
supplies what spoils its files:

    class TestMyEngine(MetaEngineContract):
        survives = True

        def url(self, folder):
            return f"mine://{folder}/volume"

        def data_file(self, folder): ...        # the file that holds the pairs
        def make_foreign(self, folder): ...     # put another program's file of the same kind there
        def make_newer(self, folder): ...       # have the file say that a newer release wrote it

Where the files are but a copy of what is durable elsewhere, set `disposable`: damaged ones are then made anew.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from stoker.core.errors import CorruptError, NoSpaceError, StokerError, UsageError
from stoker.fs.meta.engines.urls import open_engine
from stoker.fs.meta.kv import (
    HISTORY_BYTES_MAX,
    KEY_BYTES_MAX,
    Conflict,
    Engine,
    HistoryGoneError,
    KeyRange,
    ReadSet,
)
from stoker.fs.meta.view import View

_KILLED_AFTER: Final = 40
_WRITER: Final = """
import sys
from stoker.fs.meta.engines.urls import open_engine
engine = open_engine(sys.argv[1])
for number in range(100_000):
    key = number.to_bytes(4, "big")
    engine.txn(None, {b"a" + key: key * 100, b"b" + key: key}, durable=sys.argv[2] == "durable")
    print(number, flush=True)
"""


class MetaEngineContract:
    """Subclass it and supply `url`."""

    survives: bool = False
    disposable: bool = False
    """Whether the files are a copy, made anew when they are damaged; what is durable lies elsewhere."""

    def url(self, folder: Path) -> str:
        """Return the URL of an engine in `folder`, or in memory: the same for the same folder."""
        raise NotImplementedError

    def data_file(self, folder: Path) -> Path:
        """Return the file that holds the pairs, of an engine that survives."""
        raise NotImplementedError

    def make_foreign(self, folder: Path) -> None:
        """Put another program's file of the same kind where the engine would be."""
        raise NotImplementedError

    def make_newer(self, folder: Path) -> None:
        """Have the files of an engine that is closed say that a newer release wrote them."""
        raise NotImplementedError

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        """An empty engine."""
        with open_engine(self.url(tmp_path), create=True) as engine:
            yield engine

    def need_survival(self) -> None:
        """Skip what only an engine on a disk can do."""
        if not self.survives:
            pytest.skip("the engine ends with its process")

    # reading and writing

    def test_an_empty_engine_holds_nothing(self, engine: Engine) -> None:
        assert engine.revision() == 0
        assert engine.get(b"absent") is None
        assert engine.scan(b"") == []
        assert engine.changes(0) == []

    def test_what_was_written_is_read(self, engine: Engine) -> None:
        assert engine.txn(None, {b"a": b"1", b"b": b"", b"c\0\xff": b"\0" * 100_000}) == 1
        assert engine.get_many([b"b", b"a", b"absent", b"c\0\xff"]) == [b"", b"1", None, b"\0" * 100_000]
        assert engine.txn(None, {b"a": b"2", b"b": None, b"never": None}) == 2
        assert engine.get_many([b"a", b"b", b"never"]) == [b"2", None, None]
        assert engine.revision() == 2

    def test_without_writes_there_is_no_revision(self, engine: Engine) -> None:
        engine.txn(None, {b"a": b"1"})
        assert engine.txn(ReadSet(1, {b"a": True}), {}) == 1
        assert engine.revision() == 1
        assert len(engine.changes(0)) == 1

    @pytest.mark.parametrize("key", [b"", b"k" * (KEY_BYTES_MAX + 1)])
    def test_keys_beyond_the_limits_are_refused(self, engine: Engine, key: bytes) -> None:
        with pytest.raises(UsageError, match="length"):
            engine.txn(None, {b"good": b"1", key: b"1"})
        assert engine.get(b"good") is None

    def test_the_longest_key_is_kept(self, engine: Engine) -> None:
        key = b"\xff" * KEY_BYTES_MAX
        engine.txn(None, {key: b"1"})
        assert engine.scan(b"\xff") == [(key, b"1")]
        assert engine.scan(b"\xff", after=key) == []

    # order

    def test_scans_are_in_the_order_of_bytes(self, engine: Engine) -> None:
        chance = random.Random(7)  # noqa: S311 - not a secret
        keys = {chance.randbytes(chance.randint(1, 12)) for _ in range(500)} | {b"\xff", b"\xff\xff", b"\xff\0", b"\0"}
        engine.txn(None, {key: key[::-1] for key in keys})
        assert engine.scan(b"") == [(key, key[::-1]) for key in sorted(keys)]
        for prefix in (b"\0", b"\x7f", b"\xff", b"\xff\xff"):
            wanted = sorted(key for key in keys if key.startswith(prefix))
            assert [key for key, _ in engine.scan(prefix)] == wanted
            for place in range(0, len(wanted), 3):
                assert [key for key, _ in engine.scan(prefix, wanted[place], 2)] == wanted[place + 1 : place + 3]

    def test_a_scan_goes_on_behind_a_key_that_is_not_there(self, engine: Engine) -> None:
        engine.txn(None, {b"p" + bytes([n]): b"" for n in range(0, 20, 2)})
        assert [key[1] for key, _ in engine.scan(b"p", b"p\x05", 3)] == [6, 8, 10]
        assert [key[1] for key, _ in engine.scan(b"p", b"a", 2)] == [0, 2]
        assert engine.scan(b"p", b"q") == []

    # snapshots

    def test_a_snapshot_does_not_change(self, engine: Engine) -> None:
        engine.txn(None, {b"a": b"1", b"b": b"1"})
        with engine.snapshot() as before:
            engine.txn(None, {b"a": b"2", b"b": None, b"c": b"2"})
            with engine.snapshot() as between:
                engine.txn(None, {b"a": None, b"c": b"3"})
                assert before.scan(b"") == [(b"a", b"1"), (b"b", b"1")]
                assert between.scan(b"") == [(b"a", b"2"), (b"c", b"2")]
                assert engine.scan(b"", snapshot=before) == before.scan(b"")
                assert (before.get(b"c"), between.get(b"b"), between.get_many([b"c"])) == (None, None, [b"2"])
                assert (before.revision, between.revision, engine.revision()) == (1, 2, 3)
        assert engine.scan(b"") == [(b"c", b"3")]

    def test_what_snapshots_held_on_to_is_gone_with_them(self, engine: Engine) -> None:
        engine.txn(None, {b"k%03d" % number: b"1" for number in range(100)})
        first, second = engine.snapshot(), engine.snapshot()
        engine.txn(None, {b"k%03d" % number: None for number in range(100)})
        first.close()
        first.close()
        assert len(second.scan(b"k")) == 100
        second.close()
        assert engine.scan(b"") == []
        engine.txn(None, {b"k%03d" % number: b"2" for number in range(50)})
        assert [value for _, value in engine.scan(b"k")] == [b"2"] * 50

    def test_readers_see_whole_transactions(self, engine: Engine) -> None:
        stop = threading.Event()
        engine.txn(None, {b"x": b"0", b"y": b"0"})

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                engine.txn(None, {b"x": b"%d" % number, b"y": b"%d" % number})

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                for _ in range(200):
                    x, y = engine.get_many([b"x", b"y"])
                    assert x == y
            finally:
                stop.set()
            writing.result()

    # conflicts

    def test_a_key_that_changed_is_a_conflict(self, engine: Engine) -> None:
        engine.txn(None, {b"a": b"1", b"b": b"1"})
        engine.txn(None, {b"a": b"2"})
        told = engine.txn(ReadSet(1, {b"b": True, b"a": True}), {b"b": b"lost"})
        assert told == Conflict(b"a", 2)
        assert (engine.get(b"b"), engine.revision()) == (b"1", 2)
        assert engine.txn(ReadSet(1, {b"b": True}), {b"b": b"2"}) == 3

    def test_a_key_that_came_or_went_is_a_conflict(self, engine: Engine) -> None:
        engine.txn(None, {b"a": b"1"})
        engine.txn(None, {b"a": None, b"new": b"1"})
        assert isinstance(engine.txn(ReadSet(1, {b"a": True}), {b"x": b""}), Conflict)
        assert isinstance(engine.txn(ReadSet(1, {b"new": False}), {b"x": b""}), Conflict)
        engine.txn(None, {b"new": None})
        assert engine.txn(ReadSet(1, {b"new": False}), {b"x": b""}) == 4
        assert isinstance(engine.txn(ReadSet(1, {b"a": True}), {}), Conflict)

    def test_a_range_that_changed_is_a_conflict(self, engine: Engine) -> None:
        engine.txn(None, {b"p1": b"", b"p3": b"", b"q": b""})
        whole = ReadSet(1, {}, (KeyRange(b"p", b"q", 2),))
        engine.txn(None, {b"q": b"1"})
        assert engine.txn(whole, {b"x": b""}) == 3
        changes: list[dict[bytes, bytes | None]]
        changes = [{b"p2": b""}, {b"p2": None, b"p1": None}, {b"p3": b"1", b"p1": b""}]
        for number, change in enumerate(changes, 4):
            assert engine.txn(None, change) == number
            assert isinstance(engine.txn(whole, {b"x": b""}), Conflict)

    def test_a_view_tells_its_engine_all_that_it_read(self, engine: Engine) -> None:
        engine.txn(None, {b"i%08d" % n: b"" for n in range(20)})
        with engine.snapshot() as snapshot:
            view = View(snapshot)
            view.put(b"i00000005", None)
            assert len(view.scan(b"i", limit=10)) == 10
            view.put(b"out", b"1")
        engine.txn(None, {b"i00000019": None})  # behind what was scanned
        assert isinstance(engine.txn(view.read_set(), view.writes), int)
        with engine.snapshot() as snapshot:
            view = View(snapshot)
            view.scan(b"i", limit=10)
            view.put(b"out", b"2")
        engine.txn(None, {b"i00000003": None})
        assert isinstance(engine.txn(view.read_set(), view.writes), Conflict)

    def test_of_many_who_count_none_is_lost(self, engine: Engine) -> None:
        engine.txn(None, {b"count": b"0"})

        def count(_: int) -> None:
            while True:
                with engine.snapshot() as snapshot:
                    view = View(snapshot)
                    view.put(b"count", b"%d" % (int(view.get(b"count") or b"") + 1))
                if isinstance(engine.txn(view.read_set(), view.writes), int):
                    return

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(60)))
        assert engine.get(b"count") == b"60"

    # watching and loading

    def test_changes_are_told_in_order(self, engine: Engine) -> None:
        for number in range(1, 6):
            engine.txn(None, {b"k%d" % number: b"v", b"k%d" % (number - 1): None})
        told = engine.changes(2)
        assert [change.revision for change in told] == [3, 4, 5]
        assert told[0].writes == ((b"k3", b"v"), (b"k2", None))
        assert [change.revision for change in engine.changes(0, limit=2)] == [1, 2]

    def test_watching_waits_for_the_next_commit(self, engine: Engine) -> None:
        engine.txn(None, {b"a": b"1"})
        assert engine.watch(1, timeout_seconds=0.01) == []
        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(engine.watch, 1, timeout_seconds=30)
            engine.txn(None, {b"a": b"2"})
            assert [change.writes for change in watching.result()] == [((b"a", b"2"),)]

    def test_old_changes_are_gone_and_it_is_said(self, engine: Engine) -> None:
        large = bytes(HISTORY_BYTES_MAX // 4)
        for number in range(6):
            engine.txn(None, {b"large": large, b"n": b"%d" % number})
        with pytest.raises(HistoryGoneError, match="no longer kept"):
            engine.changes(0)
        assert [change.revision for change in engine.changes(4)] == [5, 6]
        assert engine.get(b"n") == b"5"

    def test_loading_fills_an_empty_engine_and_no_other(self, engine: Engine) -> None:
        pairs = [(b"k%05d" % number, b"%d" % number) for number in range(3000)]
        revision = engine.bulk_load(iter(pairs))
        assert engine.scan(b"") == pairs
        with pytest.raises(HistoryGoneError):
            engine.changes(0)
        assert engine.changes(revision) == []
        with pytest.raises(UsageError, match="keys already"):
            engine.bulk_load([(b"more", b"")])
        assert engine.get(b"more") is None

    # survival

    def test_what_was_written_is_there_when_opened_again(self, tmp_path: Path) -> None:
        self.need_survival()
        with open_engine(self.url(tmp_path), create=True) as engine:
            engine.txn(None, {b"a": b"1"})
            engine.txn(None, {b"a": b"2", b"b": b"3"})
        with open_engine(self.url(tmp_path)) as engine:
            assert engine.scan(b"") == [(b"a", b"2"), (b"b", b"3")]
            assert engine.revision() == 2
            assert len(engine.changes(0)) == 2
            engine.close()
            engine.close()

    def test_two_who_open_it_see_each_other(self, tmp_path: Path) -> None:
        with open_engine(self.url(tmp_path), create=True) as one, open_engine(self.url(tmp_path)) as two:
            one.txn(None, {b"a": b"1"})
            assert two.get(b"a") == b"1"
            assert isinstance(two.txn(ReadSet(0, {b"a": False}), {b"a": b"2"}), Conflict)
            assert two.txn(ReadSet(1, {b"a": True}), {b"a": b"2"}) == 2
            assert [change.revision for change in one.watch(1, timeout_seconds=10)] == [2]

    def test_a_place_is_made_once_and_opened_when_made(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no volume"):
            open_engine(self.url(tmp_path))
        open_engine(self.url(tmp_path), create=True).close()
        with pytest.raises(UsageError, match=r"taken|already"):
            open_engine(self.url(tmp_path), create=True)

    def test_what_is_visible_is_so_at_once_and_can_be_made_durable(self, engine: Engine) -> None:
        revision = engine.txn(None, {b"a": b"1"}, durable=False)
        assert isinstance(revision, int)
        assert engine.get(b"a") == b"1"
        assert isinstance(engine.txn(ReadSet(0, {b"a": False}), {b"a": b"2"}, durable=False), Conflict)
        engine.make_durable(revision)
        assert engine.txn(ReadSet(revision, {b"a": True}), {b"a": b"3"}) == revision + 1
        assert [change.revision for change in engine.changes(0)] == [revision, revision + 1]

    @pytest.mark.parametrize("kind", ["durable", "visible"])
    def test_what_was_acknowledged_survives_a_killed_process(self, tmp_path: Path, kind: str) -> None:
        self.need_survival()
        open_engine(self.url(tmp_path), create=True).close()
        writer = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", _WRITER, self.url(tmp_path), kind], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        told = [int(writer.stdout.readline()) for _ in range(_KILLED_AFTER)]
        writer.send_signal(signal.SIGKILL)
        told += [int(line) for line in writer.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        writer.stdout.close()
        writer.wait()
        with open_engine(self.url(tmp_path)) as engine:
            first = {int.from_bytes(key[1:], "big") for key, value in engine.scan(b"a") if value == key[1:] * 100}
            second = {int.from_bytes(key[1:], "big") for key, _ in engine.scan(b"b")}
            assert first == second >= set(told)
            assert engine.revision() == len(first)
            assert isinstance(engine.txn(None, {b"more": b""}), int)

    def test_a_full_disk_loses_nothing_and_ends(self, tmp_path: Path) -> None:
        self.need_survival()
        with open_engine(self.url(tmp_path), create=True) as engine:
            engine.txn(None, {b"first": b"1"})
            kept: list[bytes] = []
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))
            try:
                with pytest.raises(NoSpaceError, match=r"cannot be written"):
                    for number in range(2000):
                        engine.txn(None, {b"k%04d" % number: os.urandom(20_000)})
                        kept.append(b"k%04d" % number)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert kept
            there = [key for key, _ in engine.scan(b"k")]
            # Of the transaction that met the full disk a copy's engine does not know whether it is done.
            assert there == kept or (self.disposable and there == [*kept, b"k%04d" % len(kept)])
            kept = there
            engine.txn(None, {b"later": b"1"})
        with open_engine(self.url(tmp_path)) as engine:
            assert [key for key, _ in engine.scan(b"k")] == kept
            assert (engine.get(b"first"), engine.get(b"later")) == (b"1", b"1")

    @pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
    def test_a_torn_file_is_refused_in_a_sentence(self, tmp_path: Path, part: float) -> None:
        self.need_survival()
        with open_engine(self.url(tmp_path), create=True) as engine:
            engine.txn(None, {b"k%04d" % number: bytes(1000) for number in range(500)})
        file = self.data_file(tmp_path)
        os.truncate(file, int(file.stat().st_size * part))
        if self.disposable:
            with open_engine(self.url(tmp_path)) as engine:
                assert engine.scan(b"k") == [(b"k%04d" % number, bytes(1000)) for number in range(500)]
            return
        with pytest.raises((CorruptError, UsageError)) as caught:
            open_engine(self.url(tmp_path))
        assert "\n" not in str(caught.value)

    def test_noise_is_refused_in_a_sentence(self, tmp_path: Path) -> None:
        self.need_survival()
        with open_engine(self.url(tmp_path), create=True) as engine:
            engine.txn(None, {b"a": b"1"})
        file = self.data_file(tmp_path)
        file.write_bytes(random.Random(3).randbytes(file.stat().st_size))  # noqa: S311 - not a secret
        if self.disposable:
            with open_engine(self.url(tmp_path)) as engine:
                assert engine.scan(b"") == [(b"a", b"1")]
            return
        with pytest.raises((CorruptError, UsageError)):
            open_engine(self.url(tmp_path))

    def test_another_programs_file_is_refused_and_left_alone(self, tmp_path: Path) -> None:
        self.need_survival()
        self.make_foreign(tmp_path)
        before = self.data_file(tmp_path).read_bytes()
        with pytest.raises(UsageError, match="another program"):
            open_engine(self.url(tmp_path))
        with pytest.raises(UsageError, match="taken"):
            open_engine(self.url(tmp_path), create=True)
        assert self.data_file(tmp_path).read_bytes() == before

    def test_a_newer_file_is_refused(self, tmp_path: Path) -> None:
        self.need_survival()
        open_engine(self.url(tmp_path), create=True).close()
        self.make_newer(tmp_path)
        with pytest.raises(UsageError, match="newer release"):
            open_engine(self.url(tmp_path))

    def test_an_unknown_option_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such option"):
            open_engine(self.url(tmp_path) + "?snyc=full", create=True)
        with pytest.raises(StokerError):
            open_engine(self.url(tmp_path))
