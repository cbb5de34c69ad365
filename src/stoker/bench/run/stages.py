"""What a long command is at: stage n of m with its name, how long it takes, how far it is and what is left; and the
warnings and errors, told when they come and all again at the end, where they are read (UX-04)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec

from stoker.core import clock
from stoker.core.units import format_seconds

TOLD_EVERY_SECONDS: Final = 10.0
REPEATED_MAX: Final = 50
Say = Callable[[str], None]


class StageTold(msgspec.Struct, frozen=True):
    """Where a command is. `done_ratio` and `left_seconds` are None where they cannot be known."""

    number: int
    count: int
    name: str
    elapsed_seconds: float
    done_ratio: float | None = None
    left_seconds: float | None = None
    ended: bool = False
    more: str = ""

    @property
    def line(self) -> str:
        """Return it as a line: `2/4 collect`, `3/4 run: 45 %, 1m 20s, 1m 38s left`, `3/4 run: done in 2m 58s`.

        `more` is what else is to be told of the moment.
        """
        place = f"{self.number}/{self.count} {self.name}"
        elapsed = format_seconds(self.elapsed_seconds)
        if self.ended:
            return f"{place}: done in {elapsed}"
        more = f"; {self.more}" if self.more else ""
        if self.done_ratio is None:
            return f"{place}: {elapsed}{more}" if more else place
        left = f", {format_seconds(self.left_seconds)} left" if self.left_seconds is not None else ""
        return f"{place}: {100 * self.done_ratio:.0f} %, {elapsed}{left}{more}"


class Stages:
    """The stages of a command, told by `say`; `warn` gets the warnings and the errors.

    Progress is told now and then only, so that a log does not grow with it. Use it as a context: at its end, however
    that comes, what was warned of is told again.
    """

    def __init__(self, names: Sequence[str], say: Say, warn: Say, *, every_seconds: float = TOLD_EVERY_SECONDS) -> None:
        self._names, self._say, self._warn = list(names), say, warn
        self._every_ns = round(every_seconds * 1e9)
        self._number = 0
        self._began_ns = self._told_ns = clock.monotonic_ns()
        self._remarks: list[str] = []

    def __enter__(self) -> "Stages":
        return self

    def __exit__(self, *_: object) -> None:
        self.repeat()

    def begin(self, number: int, name: str = "") -> None:
        """Begin a stage, counted from 1; `name` replaces the one it was given."""
        assert 1 <= number <= len(self._names)
        self._number = number
        if name:
            self._names[number - 1] = name
        self._began_ns = self._told_ns = clock.monotonic_ns()
        self._say(self.told().line)

    @contextmanager
    def stage(self, number: int, name: str = "") -> Iterator[None]:
        """Tell of a stage as it begins and, when it ends well, how long it took."""
        self.begin(number, name)
        yield
        self.done()

    def done(self) -> None:
        """Tell how long the stage took."""
        self._say(msgspec.structs.replace(self.told(), ended=True).line)

    def told(self, done_ratio: float | None = None, more: str = "") -> StageTold:
        """Return where the command is."""
        elapsed = (clock.monotonic_ns() - self._began_ns) / 1e9
        ratio = None if done_ratio is None else min(max(done_ratio, 0.0), 1.0)
        left = elapsed * (1 - ratio) / ratio if ratio else None
        name = self._names[self._number - 1] if self._number else ""
        return StageTold(self._number, len(self._names), name, elapsed, ratio, left, more=more)

    def progress(self, done_ratio: float | None, more: str = "") -> None:
        """Tell how far the stage is, if that was not told a moment ago."""
        now_ns = clock.monotonic_ns()
        if now_ns - self._told_ns >= self._every_ns:
            self._told_ns = now_ns
            self._say(self.told(done_ratio, more).line)

    def warn(self, text: str) -> None:
        """Tell a warning or an error now, and again at the end."""
        self._remarks.append(text)
        self._warn(text)

    @property
    def remarks(self) -> list[str]:
        """Return what was warned of, each once, in order."""
        return list(dict.fromkeys(self._remarks))

    def repeat(self) -> None:
        """Tell again what was warned of, each once; nothing when there was nothing, or it was just told."""
        remarks = self.remarks
        self._remarks = []
        if not remarks:
            return
        self._say(f"{len(remarks)} warning{'' if len(remarks) == 1 else 's'} on the way:")
        for text in remarks[:REPEATED_MAX]:
            self._warn(text)
        if len(remarks) > REPEATED_MAX:
            self._say(f"and {len(remarks) - REPEATED_MAX} more")
