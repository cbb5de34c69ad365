"""Whatever a power loss leaves: recovery gives a prefix of the commits, and all that were acknowledged."""

from collections.abc import Callable
from itertools import accumulate

import pytest
from log_makers import FOLDER, commits, journal_on, recovered_bytes

from stoker.pages.journal import JournalEnd, recover
from stoker.pages.journal.spare import Spare
from stoker.testing.crash_states import CrashDisk

AT_EACH = 60


class Run:
    """A journal written on a disk that records, and which bytes were acknowledged at which step."""

    def __init__(self, disk: CrashDisk, seed: int, group: int, full: bool, size_max: int) -> None:
        self.disk = disk
        journal, end = journal_on(disk)
        self.made = commits(60, seed, size_max)
        self.acknowledged = [(disk.step, 0)]
        for start in range(0, len(self.made), group):
            chunk = self.made[start : start + group]
            end = journal.append(end, chunk, durable_lsn=end.last_lsn)
            journal.sync(end, full=full)
            self.acknowledged.append((disk.step, start + len(chunk)))

    def acknowledged_at(self, step: int) -> int:
        return max((count for at, count in self.acknowledged if at <= step), default=0)


def broken_promises(run: Run, seed: int, at_each: int) -> tuple[int, list[str]]:
    """Recover every crash state; return how many there were and what was wrong."""
    borders = {len_: index for index, len_ in enumerate([0, *accumulate(len(one) for one in run.made)])}
    whole = b"".join(run.made)
    wrong, states = [], 0
    first = run.acknowledged[0][0]
    for crashed in run.disk.crash_states(seed, at_each):
        if crashed.step < first:
            continue  # the journal itself was still being made
        states += 1
        try:
            found = recovered_bytes(crashed.disk)
        except Exception as error:
            wrong.append(f"step {crashed.step}: {error}")
            continue
        if not whole.startswith(found) or len(found) not in borders:
            wrong.append(f"step {crashed.step}: not a prefix of commits")
        elif borders[len(found)] < run.acknowledged_at(crashed.step):
            wrong.append(f"step {crashed.step}: {borders[len(found)]} of {run.acknowledged_at(crashed.step)} commits")
    return states, wrong


@pytest.mark.parametrize(
    ("seed", "group", "full", "size_max", "least"),
    [
        (1, 1, False, 900, 1300),
        (2, 4, False, 900, 1350),
        (3, 16, True, 900, 1650),
        pytest.param(4, 3, False, 5000, 4700, marks=pytest.mark.slow),
        (5, 1, True, 200, 650),
        (6, 7, False, 60, 200),
        (7, 2, False, 400, 500),
    ],
)
def test_recovery_gives_a_prefix_with_all_that_was_acknowledged(
    seed: int, group: int, full: bool, size_max: int, least: int
) -> None:
    """Altogether these are more than 10,000 disks."""
    run = Run(CrashDisk(), seed, group, full, size_max)
    states, wrong = broken_promises(run, seed, AT_EACH)
    assert not wrong, wrong[:5]
    assert states >= least


@pytest.mark.parametrize(("seed", "group", "size_max", "least"), [(8, 1, 900, 1100)])
def test_segments_that_were_spares_keep_the_same_promises(
    monkeypatch: pytest.MonkeyPatch, seed: int, group: int, size_max: int, least: int
) -> None:
    taken = []

    def at_once(self: Spare) -> None:
        if self._handle is None:
            self.prepare()
            taken.append(self._handle)

    monkeypatch.setattr(Spare, "begin", at_once)
    disk = CrashDisk()
    run = Run(disk, seed, group, False, size_max)
    states, wrong = broken_promises(run, seed, AT_EACH)
    assert not wrong, wrong[:5]
    assert states >= least
    assert len(taken) > 3
    assert len(disk.names(FOLDER)) >= len(taken)


class NoSync(CrashDisk):
    """Says that it synced."""

    def sync(self, handle: int, *, full: bool = False) -> None:
        """Do nothing."""


class NoFolderSync(CrashDisk):
    """Forgets folders."""

    def sync_folder(self, folder: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize("kind", [NoSync, NoFolderSync])
def test_the_enumerator_finds_a_missing_sync(kind: Callable[[], CrashDisk]) -> None:
    run = Run(kind(), 1, 1, False, 900)
    _, wrong = broken_promises(run, 1, 10)
    assert wrong


def test_recovering_twice_gives_the_same_and_appending_goes_on() -> None:
    run = Run(CrashDisk(), 7, 5, False, 900)
    for crashed in list(run.disk.crash_states(3, 4))[40::7]:
        found = recover(FOLDER, disk=crashed.disk)
        assert recover(FOLDER, disk=crashed.disk).end == found.end
        from log_makers import SALT, commit

        from stoker.pages.journal import Journal, scan

        journal = Journal.open(FOLDER, disk=crashed.disk)
        end: JournalEnd = journal.append(found.end, [commit(found.last_lsn + 1, [10, 20], SALT)])
        journal.sync(end)
        assert recover(FOLDER, disk=crashed.disk).end == end
        assert [frame.lsn for frame in scan(FOLDER, disk=crashed.disk)] == list(range(1, end.last_lsn + 1))


def test_whatever_a_power_loss_leaves_of_removed_segments_the_log_has_no_gap() -> None:
    disk = CrashDisk()
    journal, end = journal_on(disk)
    for one in commits(150):
        end = journal.append(end, [one])
    journal.sync(end)
    begun = disk.step
    assert len(journal.remove_below(200)) > 2
    states = [crashed for crashed in disk.crash_states(1, 40) if crashed.step >= begun]
    assert len(states) > 4
    for crashed in states:
        found = recover(FOLDER, disk=crashed.disk)
        assert found.end == end
        assert found.first_lsn <= 200
