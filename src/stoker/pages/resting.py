"""A store in a folder that nobody has open: what it holds is told from the files as they lie; nothing is changed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.pages.arena.mapping import named_arenas
from stoker.pages.errors import CorruptPages, PagesError
from stoker.pages.folder import StoreFolder, folder_kept_still
from stoker.pages.frames import Location, PageState, Residency
from stoker.pages.history import Kept, State, StateDiff, Target, checkpoint_name, diff_states, replay, verify_checkpoint
from stoker.pages.history.replay import NOW
from stoker.pages.images import PageImage
from stoker.pages.journal import recover
from stoker.pages.metrics import StoreStats


class RestingStore(Kept):
    """What a folder's store will be for the next that opens it. It looks as `Timeline` does."""

    def __init__(self, folder: StoreFolder) -> None:
        super().__init__(folder.log, folder.checkpoints, bytes.fromhex(folder.identity.uuid))
        self._folder = folder
        self._now: State | None = None

    def _state(self) -> State:
        """Return all pages. Raises CorruptLog where the log is damaged before its end, ChecksumError, FormatError."""
        if self._now is None:
            self.require_sound_log()
            self._now = self.replay()
        return self._now

    def require_sound_log(self) -> None:
        """Raise CorruptLog where the log is damaged before its end, FormatError where there is none."""
        recover(self._folder.log, mend=False)

    @property
    def lsn(self) -> int:
        """LSN of the newest commit."""
        return self._state().lsn

    def images(self) -> Iterator[PageImage]:
        """Yield all pages in the order of their ids."""
        pages = self._state().pages
        return (pages[page] for page in sorted(pages))

    def state_of(self, image: PageImage) -> PageState:
        """Return the state of a page: nobody is at it."""
        return PageState(image.state)

    def diff(self, old: Target, new: Target = NOW) -> StateDiff:
        """Return what differs between two moments. Raises PagesError for one that is gone, or never was."""
        return diff_states(self.replay(old), self.replay(new))

    def numbers(self) -> StoreStats:
        """Return what the store is; all that was committed is durable."""
        identity, state = self._folder.identity, self._state()
        images = state.pages.values()
        return StoreStats(
            name=self._folder.arena_name,
            lsn=state.lsn,
            durable_lsn=state.lsn,
            pages=len(state.pages),
            page_bytes=state.page_bytes,
            pages_by_location={one.name.lower(): sum(image.location == one for image in images) for one in Location},
            bytes_by_location={
                one.name.lower(): sum(image.size_bytes for image in images if image.location == one) for one in Location
            },
            pages_by_residency=dict(Counter(Residency(image.residency).name.lower() for image in images)),
            pages_by_state=dict(Counter(PageState(image.state).name.lower() for image in images)),
            arena_bytes=identity.size_bytes,
            free_bytes=identity.size_bytes,
            log_ring_bytes=identity.log_bytes,
            log_unflushed_bytes=0,
            retired_extents=0,
            snapshots_oldest_lsn=0,
            processes=0,
            poisoned=False,
            counters={},
        )

    def verify(self) -> list[str]:
        """Return all that is wrong, a sentence each: in the checkpoints, in the log, and between the two.

        The pages are made twice: from the newest sound checkpoint, and from the oldest that the log goes on from.
        """
        wrong: list[str] = []
        for lsn in self.lsns():
            wrong += verify_checkpoint(self._folder.checkpoints / checkpoint_name(lsn), uuid=self.uuid)
        try:
            now = self._state()
            base = self.base(Target(mark=""))
            then = replay(base, self.scan(since=base.lsn + 1))
        except CorruptPages as error:
            return [*wrong, str(error)]
        except PagesError as error:
            return [*wrong, f"replay is not possible: {error}"]
        if then.digest() != now.digest():
            wrong.append(f"log and checkpoints lead to different pages: {diff_states(then, now)}")
        return wrong


@contextmanager
def at_rest(folder: StoreFolder) -> Iterator[RestingStore | None]:
    """Give the store as it lies in its folder, for a block in which nobody can open it; None when it is open, or its
    shared memory is still there because all who had it open were killed."""
    with folder_kept_still(folder.path):
        yield None if folder.arena_name in named_arenas() else RestingStore(folder)
