"""Stages: what is told when, and that warnings come again at the end however that comes."""

import pytest

from stoker.bench.run.stages import Stages, StageTold
from stoker.core import clock


class Ear:
    """Hears lines and warnings, in order."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, text: str) -> None:
        self.heard.append(text)

    def warn(self, text: str) -> None:
        self.heard.append(f"! {text}")

    def stages(self, *names: str, **more: float) -> Stages:
        return Stages(names, self.say, self.warn, **more)


def test_each_stage_is_told_with_its_place_and_its_time() -> None:
    ear = Ear()
    with ear.stages("validate", "collect") as stages:
        with stages.stage(1):
            pass
        with stages.stage(2, "collect from 3 hosts"):
            pass
    assert ear.heard[0] == "1/2 validate"
    assert ear.heard[1].startswith("1/2 validate: done in ")
    assert ear.heard[2] == "2/2 collect from 3 hosts"


def test_warnings_come_at_once_and_again_at_the_end_each_once() -> None:
    ear = Ear()
    with ear.stages("run") as stages:
        stages.begin(1)
        for text in ("slow disk", "clock", "slow disk"):
            stages.warn(text)
        assert stages.remarks == ["slow disk", "clock"]
    assert ear.heard[1:4] == ["! slow disk", "! clock", "! slow disk"]
    assert ear.heard[4:] == ["2 warnings on the way:", "! slow disk", "! clock"]
    stages.repeat()
    assert len(ear.heard) == 7


def test_an_error_does_not_keep_the_warnings_from_being_repeated() -> None:
    ear = Ear()
    with pytest.raises(RuntimeError), ear.stages("run") as stages, stages.stage(1):
        stages.warn("it smells")
        raise RuntimeError
    assert ear.heard == ["1/1 run", "! it smells", "1 warning on the way:", "! it smells"]


def test_many_warnings_are_cut() -> None:
    ear = Ear()
    with ear.stages("run") as stages:
        for number in range(60):
            stages.warn(f"{number}")
    assert ear.heard[-1] == "and 10 more"
    assert len(ear.heard) == 60 + 1 + 50 + 1


def test_progress_tells_percent_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = [10**9]
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now_ns[0])
    ear = Ear()
    stages = ear.stages("a", "run", every_seconds=10)
    stages.begin(2)
    now_ns[0] += 5 * 10**9
    stages.progress(0.1)  # too early
    now_ns[0] += 75 * 10**9
    stages.progress(0.25)
    stages.progress(0.26)
    assert ear.heard == ["2/2 run", "2/2 run: 25 %, 1m 20s, 4m 00s left"]
    now_ns[0] += 11 * 10**9
    stages.progress(0.0)
    assert ear.heard[-1] == "2/2 run: 0 %, 1m 31s"


def test_a_line_says_no_more_than_is_known() -> None:
    assert StageTold(1, 4, "validate", 2.0).line == "1/4 validate"
    assert StageTold(1, 4, "validate", 2.0, ended=True).line == "1/4 validate: done in 2.00 s"
