"""What the folder of a store keeps of its past: checkpoints, and the log behind them. Nothing here writes."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from stoker.pages.errors import CorruptLog, CorruptPages, PagesError
from stoker.pages.frames import Frame, FrameType
from stoker.pages.history.checkpoint import checkpoint_name
from stoker.pages.history.checkpoint_read import latest_valid, list_checkpoints, open_checkpoint
from stoker.pages.history.replay import NOW, PageVersion, Target, page_history, replay
from stoker.pages.history.state import State
from stoker.pages.journal import Recovered, recover, scan, sources


class Kept:
    """Checkpoints and log of one store.

    log, checkpoints  their folders
    """

    def __init__(self, log: Path, checkpoints: Path) -> None:
        self._log = log
        self._checkpoints = checkpoints

    def log_end(self) -> Recovered:
        """Return where the sound part of the log begins and ends. Raises CorruptLog where nothing of it is sound."""
        return recover(self._log, mend=False, policy="point_in_time")

    @property
    def floor_lsn(self) -> int:
        """LSN of the oldest frame that is kept."""
        return self.log_end().first_lsn

    def lsns(self) -> list[int]:
        """Return the LSNs of the checkpoints, oldest first, sound or not."""
        return list_checkpoints(self._checkpoints)

    def scan(
        self,
        *,
        since: int = 0,
        until: int | None = None,
        page: int | None = None,
        source: str | None = None,
        kinds: frozenset[FrameType] | None = None,
    ) -> Iterator[Frame]:
        """Yield committed frames: with LSNs from `since` to `until`, of a page, of a source, of some types."""
        return scan(self._log, since=since, until=until, page=page, source=source, kinds=kinds)

    def sources(self) -> dict[int, str]:
        """Return the names of who wrote, by number: those that sound checkpoints and the log tell."""
        told: dict[int, str] = {}
        for lsn in self.lsns():
            with suppress(CorruptPages):  # what is wrong with a checkpoint, `verify` tells
                told.update(open_checkpoint(self._checkpoints / checkpoint_name(lsn)).index.sources)
        return {**told, **sources(self.scan(kinds=frozenset({FrameType.SOURCE})))}

    def base(self, to: Target = NOW) -> State:
        """Return the newest checkpoint before the moment; for other moments than LSNs, the oldest that the log
        follows without a gap. Raises PagesError for a moment before what is kept, CorruptLog for a gap behind it."""
        floor = self.floor_lsn
        if to == NOW or to.lsn is not None:
            at_most = to.lsn
        elif floor <= 1:
            return State()
        else:
            at_most = next((lsn for lsn in self.lsns() if lsn + 1 >= floor), None)
        base, wrong = latest_valid(self._checkpoints, at_most=at_most)
        if base.lsn + 1 < floor and to == NOW:
            raise CorruptLog(
                "log begins behind the newest sound checkpoint",
                where=str(self._log),
                expected=f"LSN {base.lsn + 1}",
                got=f"LSN {floor}{': ' + wrong[0] if wrong else ''}",
            )
        if base.lsn + 1 < floor:
            raise PagesError(
                "moment lies before what is kept",
                expected=f"LSN {floor - 1} or later",
                got=wrong[0] if wrong else f"LSN {base.lsn if to.lsn is None else to.lsn}",
            )
        return base

    def replay(self, to: Target = NOW) -> State:
        """Return all pages as they were at a moment. Raises PagesError for one that is gone, or never was."""
        base = self.base(to)
        return replay(base, self.scan(since=base.lsn + 1), to)

    def history(self, page: int, *, with_data: bool = False) -> list[PageVersion]:
        """Return what each commit that is kept made of a page, oldest first. Raises PageNotFound."""
        base = self.base(Target(mark=""))
        return page_history(base, self.scan(since=base.lsn + 1), page, with_data=with_data)
