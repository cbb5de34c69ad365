"""The journal's entries, the rule of its log, snapshots, the folder of a copy, and the decisions of masters."""

import json
import random
import threading
from pathlib import Path

import pytest

from stoker.core.errors import CorruptError, StokerError, StoreError, UsageError
from stoker.fs.journal import protobuf
from stoker.fs.journal.client import access_of
from stoker.fs.journal.entries import (
    PART_BYTES,
    Keys,
    Leader,
    LogReader,
    Transaction,
    pack_nothing,
    pack_transaction,
    unpack_floor,
    unpack_leader,
    unpack_writes,
)
from stoker.fs.journal.etcd import KeyValue
from stoker.fs.journal.folder import CopyFolder
from stoker.fs.journal.snapshots import (
    forget_snapshots,
    newest_snapshot,
    read_manifest,
    read_pairs,
    snapshots_in,
    write_snapshot,
)
from stoker.fs.journal.state import Following, Position
from stoker.fs.master.keeping import Followers, floor_for
from stoker.fs.master.messages import pack_call, unpack_calls
from stoker.fs.master.numbers import Numbers
from stoker.fs.master.remote import Combiner, master_place
from stoker.fs.master.standby import SUSPECT_NS, Heard, should_claim
from stoker.fs.meta.answers import Number
from stoker.fs.meta.calls import Call, Create, TakeSlices
from stoker.fs.meta.engines.memory import MemoryEngine, MemoryState
from stoker.storage.opening import open_store


def transaction(revision: int, size_bytes: int = 10, seed: int = 1) -> Transaction:
    import msgspec

    record = msgspec.msgpack.encode([(b"k", random.Random(seed).randbytes(size_bytes))])
    return Transaction(revision, 1000 + revision, record)


def read_all(reader: LogReader, entries: list[bytes]) -> list[int]:
    done = []
    for entry in entries:
        complete = reader.feed(reader.number + 1, entry)
        if complete is not None:
            done.append(complete.revision)
    return done


# -- entries


@pytest.mark.parametrize("size_bytes", [0, 10, 100_000, PART_BYTES * 2 + 17])
def test_a_transaction_is_read_as_it_was_written(size_bytes: int) -> None:
    written = transaction(7, size_bytes)
    entries = pack_transaction(3, written)
    assert len(entries) == (3 if size_bytes > PART_BYTES else 1)
    assert all(len(entry) < 1_500_000 for entry in entries)
    reader = LogReader()
    assert [reader.feed(n, entry) for n, entry in enumerate(entries, 1)][-1] == written
    assert unpack_writes(written)[b"k"] == random.Random(1).randbytes(size_bytes)


def test_what_repeats_itself_is_packed_smaller() -> None:
    written = Transaction(1, 0, b"same " * 10_000)
    (entry,) = pack_transaction(1, written)
    assert len(entry) < 1000
    assert LogReader().feed(1, entry) == written


def test_every_damaged_byte_is_noticed() -> None:
    (entry,) = pack_transaction(1, transaction(1, 40))
    for place in range(len(entry)):
        damaged = bytearray(entry)
        damaged[place] ^= 0x41
        with pytest.raises(CorruptError):
            LogReader().feed(1, bytes(damaged))
    for size in range(len(entry)):
        with pytest.raises(CorruptError):
            LogReader().feed(1, entry[:size])


def test_noise_is_refused() -> None:
    chance = random.Random(5)
    for _ in range(500):
        with pytest.raises(CorruptError):
            LogReader().feed(1, chance.randbytes(chance.randint(0, 200)))
        with pytest.raises(CorruptError):
            unpack_leader(chance.randbytes(chance.randint(0, 50)))
    with pytest.raises(CorruptError):
        unpack_floor(b"-1")


# -- the rule


def test_what_a_dead_leader_left_above_a_gap_is_void() -> None:
    left = pack_transaction(1, transaction(2))
    entries = [*pack_transaction(1, transaction(1)), pack_nothing(2, 1, 0), *left, *pack_transaction(2, transaction(2))]
    reader = LogReader()
    assert read_all(reader, entries[:3]) == [1]
    complete = reader.feed(4, entries[3])
    assert complete is not None
    assert (complete.revision, reader.epoch, reader.whole) == (2, 2, 4)


def test_parts_whose_last_one_never_came_are_void() -> None:
    parts = pack_transaction(1, transaction(2, PART_BYTES * 2 + 17))
    entries = [*parts[:2], pack_nothing(2, 1, 0), parts[2], *pack_transaction(2, transaction(2))]
    reader = LogReader()
    assert read_all(reader, entries[:2]) == []
    assert (reader.number, reader.whole) == (2, 0)
    assert read_all(reader, entries[2:]) == [2]


def test_a_gap_is_refused() -> None:
    with pytest.raises(CorruptError, match="gap"):
        LogReader().feed(2, pack_nothing(1, 0, 0))


def test_a_copy_that_the_log_does_not_fit_is_refused_and_left_alone() -> None:
    state = Following(MemoryEngine(MemoryState(), "memory://x"))
    state.apply([transaction(1)], Position(1, 1))
    with pytest.raises(CorruptError, match="does not fit"):
        state.apply([transaction(3)], Position(2, 1))
    assert state.position.number == 1
    assert Following(state.copy).position == Position(1, 1)


# -- what a server says


def test_answers_of_etcd_that_are_none_are_refused() -> None:
    chance = random.Random(9)
    unpack = (protobuf.unpack_get, protobuf.unpack_txn, protobuf.unpack_compact, protobuf.unpack_watch)
    refused = 0
    for _ in range(2000):
        data = chance.randbytes(chance.randint(1, 40))
        for function in unpack:
            try:
                function(data)
            except CorruptError:
                refused += 1
    assert refused > 4000
    with pytest.raises(CorruptError, match="cut short"):
        list(protobuf.fields(b"\x0a\xff\xff\xff\xff\x0f"))
    with pytest.raises(CorruptError, match="without an end"):
        list(protobuf.fields(b"\x08" + b"\xff" * 11))


def test_passwords_come_from_files_that_the_environment_names() -> None:
    access = access_of({"STOKER_ETCD_USER": "u", "STOKER_ETCD_PASSWORD_FILE": "/p", "STOKER_ETCD_PASSWORD": "no"})
    assert (access.user, access.password_file, access.ca_file) == ("u", "/p", "")


# -- snapshots


def filled(pairs: int) -> MemoryEngine:
    state = Following(MemoryEngine(MemoryState(), "memory://x"))
    chance = random.Random(2)
    state.fill(((b"%06d" % n, chance.randbytes(n % 50)) for n in range(pairs)), 42, Position(77, 5, 9))
    assert isinstance(state.copy, MemoryEngine)
    return state.copy


def test_a_snapshot_fills_a_copy_with_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.fs.journal.snapshots._PART_BYTES", 20_000)
    copy, store = filled(5000), open_store(f"file://{tmp_path}/s", create=True)
    note = write_snapshot(copy, store, "vol")
    name, manifest = newest_snapshot(store, "vol", 78)
    assert (note.number, note.name, len(manifest.parts) > 3) == (77, name, True)
    again = Following(MemoryEngine(MemoryState(), "memory://y"))
    again.fill(read_pairs(store, name, manifest), manifest.revision, manifest.position)
    assert again.copy.scan(b"") == copy.scan(b"")
    assert (again.revision, again.copy.revision(), again.position) == (42, 42, Position(77, 5, 9))
    with pytest.raises(StokerError, match="no snapshot reaches"):
        newest_snapshot(store, "vol", 79)
    with pytest.raises(StokerError, match="no snapshot reaches"):
        newest_snapshot(store, "another", 1)


def test_a_damaged_snapshot_is_refused(tmp_path: Path) -> None:
    copy, store = filled(500), open_store(f"file://{tmp_path}/s", create=True)
    name = write_snapshot(copy, store, "vol").name
    manifest = read_manifest(store, name)
    part = f"{name}/{manifest.parts[0].name}"
    whole = bytes(store.get_range(part))
    for damaged in (whole[:-1], whole[:50] + bytes([whole[50] ^ 1]) + whole[51:], b""):
        store.put(part, damaged)
        with pytest.raises(CorruptError):
            list(read_pairs(store, name, manifest))
    store.put(f"{name}/manifest.json", b"{}")
    with pytest.raises(CorruptError):
        read_manifest(store, name)


def test_old_snapshots_are_forgotten(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/s", create=True)
    copy = filled(10)
    for number in range(4):
        Following(copy).apply([], Position(100 + number, 5))
        write_snapshot(copy, store, "vol")
    forget_snapshots(store, 2)
    assert snapshots_in(store) == [f"{102:016x}", f"{103:016x}"]
    assert {info.key.partition("/")[0] for info in store.list("")} == set(snapshots_in(store))


# -- the folder of a copy


def test_a_copy_that_was_open_when_the_host_went_down_is_made_anew(tmp_path: Path) -> None:
    place = tmp_path / "state"
    folder = CopyFolder(place, "vol")
    Following(folder.copy).apply([transaction(1)], Position(1, 1))
    folder.close()
    folder = CopyFolder(place, "vol")
    assert Following(folder.copy).position.number == 1, "closed well"
    folder.close()
    facts = json.loads((place / "journal.json").read_text())
    (place / "journal.json").write_text(json.dumps(facts | {"clean": False}))
    folder = CopyFolder(place, "vol")
    assert Following(folder.copy).position.number == 1, "the process ended, but not the host"
    folder.close()
    (place / "journal.json").write_text(json.dumps(facts | {"clean": False, "boot": "an earlier one"}))
    folder = CopyFolder(place, "vol")
    assert Following(folder.copy).position.number == 0
    folder.close()


def test_a_folder_belongs_to_one_volume_and_one_process(tmp_path: Path) -> None:
    folder = CopyFolder(tmp_path / "state", "vol")
    with pytest.raises(UsageError, match="another process"):
        CopyFolder(tmp_path / "state", "vol")
    folder.close()
    with pytest.raises(UsageError, match="another volume"):
        CopyFolder(tmp_path / "state", "other")
    (tmp_path / "state" / "journal.json").write_bytes(b"\xff")
    with pytest.raises(CorruptError, match="not readable"):
        CopyFolder(tmp_path / "state", "vol")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="another program"):
        CopyFolder(tmp_path / "theirs", "vol")


def test_facts_name_a_copy_inside_the_folder_or_are_refused(tmp_path: Path) -> None:
    CopyFolder(tmp_path / "state", "vol").close()
    facts = tmp_path / "state" / "journal.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"copy": "../../elsewhere"}))
    with pytest.raises(CorruptError, match="name no copy"):
        CopyFolder(tmp_path / "state", "vol")


def test_a_copy_that_is_made_anew_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    folder = CopyFolder(tmp_path / "state", "vol")
    Following(folder.copy).apply([transaction(1)], Position(1, 1))
    old = folder.copy

    def fail(copy: object) -> None:
        raise StoreError("no")

    with pytest.raises(StoreError):
        folder.renewed(fail)
    assert folder.copy is old

    folder.renewed(lambda copy: Following(copy).fill([(b"a", b"1")], 9, Position(50, 2)))
    assert old.get(b"k") is not None, "who reads the old one may finish"
    folder.close()
    folder = CopyFolder(tmp_path / "state", "vol")
    assert folder.copy.scan(b"") == [(b"a", b"1")]
    folder.close()
    assert sorted(entry.name for entry in (tmp_path / "state").iterdir()) == ["copy1", "journal.json", "lock"]


# -- decisions of masters


def test_when_a_standby_asks_for_power() -> None:
    leader = Leader(3, "a", "host:1", "n")
    now = 10 * SUSPECT_NS
    assert not should_claim(Heard(leader, now - SUSPECT_NS, lost=False), "host:2", now)
    assert should_claim(Heard(leader, now - SUSPECT_NS - 1, lost=False), "host:2", now), "silent"
    assert should_claim(Heard(leader, now, lost=True), "host:2", now), "its connection broke"
    assert should_claim(Heard(leader, now, lost=False), "host:1", now), "it was here before this process"
    assert should_claim(Heard(None, now, lost=False), "host:2", now), "nobody yet"
    assert should_claim(Heard(Leader(3, "", "", "n"), now, lost=False), "host:2", now), "it has given power back"


def test_how_far_the_log_is_trimmed() -> None:
    assert floor_for(snapshot=5000, slowest=9000, slack=1000, floor=1) == 4001
    assert floor_for(snapshot=5000, slowest=3000, slack=1000, floor=1) == 2001
    assert floor_for(snapshot=5000, slowest=None, slack=0, floor=1) == 5001
    assert floor_for(snapshot=0, slowest=9000, slack=0, floor=1) is None, "nothing is forgotten without a snapshot"
    assert floor_for(snapshot=5000, slowest=9000, slack=1000, floor=3500) is None, "not worth it yet"


def test_who_falls_silent_holds_the_log_no_longer() -> None:
    followers = Followers(100)
    slow = KeyValue(b"slow", b'{"number":5,"beat":1}', 1, 1)
    quick = [KeyValue(b"quick", b'{"number":%d,"beat":%d}' % (50 + n, n), 1, 1) for n in range(3)]
    followers.take((slow, quick[0]), 0)
    assert followers.slowest(50) == 5
    followers.take((slow, quick[1]), 90)
    assert followers.slowest(110) == 51
    assert followers.count(110, 1000) == 2
    assert followers.slowest(5000) is None


# -- the client's side


def test_numbers_say_below_which_all_answers_have_come() -> None:
    numbers = Numbers()
    assert [numbers.take() for _ in range(3)] == [(1, 1), (2, 1), (3, 1)]
    numbers.done(2)
    numbers.done(1)
    assert numbers.take() == (4, 3)


def test_calls_of_many_threads_travel_together_and_errors_reach_all() -> None:
    sizes: list[int] = []
    gate = threading.Event()

    def send(calls: list[Call]) -> list[Number]:  # type: ignore[type-arg]
        gate.wait(10)
        sizes.append(len(calls))
        if any(call.seq == 13 for call in calls):
            raise StoreError("refused")
        return [Number(call.seq) for call in calls]

    combiner = Combiner(send, lanes=2)  # type: ignore[arg-type]
    answered: dict[int, object] = {}

    def ask(number: int) -> None:
        try:
            answered[number] = combiner.ask([Call(TakeSlices(1), seq=number)])[0].value  # type: ignore[union-attr]
        except StoreError as error:
            answered[number] = error.what

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(20)
    assert answered[13] == "refused"
    assert all(value in (number, "refused") for number, value in answered.items())
    assert len(answered) == 20
    assert sum(sizes) == 20
    assert len(sizes) < 20
    assert combiner.ask([Call(TakeSlices(1), seq=99)]) == [Number(99)], "the lanes are free again"


def test_calls_are_read_as_they_were_sent_and_noise_is_refused() -> None:
    call = Call(Create(1, b"\xff\x00name", 0o644), session=3, seq=4, received=2)
    assert unpack_calls((pack_call(call),)) == [call]
    import msgspec

    for data in (b"", b"\x93", b"\x81\xa1x\x01", msgspec.msgpack.encode({"request": {"type": "Exec"}})):
        with pytest.raises(UsageError):
            unpack_calls((msgspec.Raw(data),))
    with pytest.raises(UsageError, match="number of calls"):
        unpack_calls(())


@pytest.mark.parametrize("url", ["http://h:1/v", "master:///v", "master://u:p@h:1/v", "master://h:1/v?x=1", "h:1"])
def test_what_is_no_url_of_masters_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        master_place(url)


def test_a_url_of_masters_names_them_and_the_volume() -> None:
    assert master_place("master://a:1,b:2/vol") == (("a:1", "b:2"), "vol")
    assert Keys("vol").number(Keys("vol").entry(77)) == 77
    with pytest.raises(CorruptError):
        Keys("vol").number(b"stoker/vol/log/zz")
