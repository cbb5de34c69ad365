"""The demonstration's page, as it is rendered, and the events that it tells."""

from stoker.fs.care.messages import CareStatus, DiskReport
from stoker.fs.care.repairs import RepairStatus
from stoker.fs.demo.checks import Step, verdict
from stoker.fs.demo.page import render
from stoker.fs.demo.watching import Event, Seen, changes
from stoker.fs.master.messages import MasterStatus
from stoker.fs.place import Disk


def seen(health: str = "up", role: str = "leads", *, answers: bool = True) -> Seen:
    status = MasterStatus(
        name="a:1", address="a:1", volume="demo", role=role, leader="a:1", epoch=1, entry=9, revision=9,
        behind_entries=0, age_seconds=0.0, sessions=2, snapshot_entry=0, floor=0, etcd=(), failure="",
    )  # fmt: skip
    disk = Disk(7, 100, "<script>alert(1)</script>", address="127.0.0.1:5", health=health)  # type: ignore[arg-type]
    repair = RepairStatus(exposure={-1: 1, 4: 20}, waiting=3, waiting_bytes=4096)
    care = CareStatus(5, (DiskReport(disk, free_bytes=1 << 30, used_bytes=1 << 20, shards=12, bad_shards=0),), repair)
    return Seen({"a:1": status if answers else None}, care, (Event("12:00", "a & b"),))


def test_the_page_tells_how_it_is_and_nothing_on_it_runs() -> None:
    text = render("demo", seen())
    assert "a:1 leads; 1 of 1 disks are up" in text
    assert "20 with 4 to spare; 1 cannot be read" in text
    assert "3 slices, 4" in text and "a &amp; b" in text
    assert "<script" not in text and "&lt;script&gt;" in text
    assert "src=" not in text and "href=" not in text and "url(" not in text
    assert "nobody leads; 0 of 1 disks are up" in render("demo", seen("down", answers=False))
    assert "nobody leads; 0 of 0 disks are up" in render("demo", Seen())


def test_what_changes_between_two_looks_is_an_event() -> None:
    assert changes(seen(), seen()) == []
    assert changes(Seen(), seen()) == ["master a:1 leads", "disk 7 of <script>alert(1)</script> joins"]
    assert changes(seen(), seen("down")) == ["disk 7 of <script>alert(1)</script> is down, it was up"]
    assert changes(seen(), seen(answers=False)) == ["master a:1 does not answer"]
    assert changes(seen(answers=False), seen()) == ["master a:1 answers again", "master a:1 leads"]
    assert changes(seen(role="follows"), seen()) == ["master a:1 leads"]


def test_the_verdict_names_what_does_not_hold() -> None:
    good, bad = Step("write", True, "", 0.1), Step("master killed", False, "", 0.1)
    assert verdict([good]).startswith("holds: all 1 steps")
    assert verdict([good, bad]) == "does not hold: master killed"
