"""Pages whose bytes are not what the log gives: taken out of use, and given their bytes again.

Bytes of a page can be damaged only past all commits: by a stray pointer of any process that maps the arena, or by
memory itself. The log and the checkpoints, which have checksums, say what the bytes must be.
"""

from collections.abc import Mapping, Sequence

from stoker.pages.errors import PageNotFound, PagesError
from stoker.pages.frames import PageState
from stoker.pages.history import State
from stoker.pages.store import Store


def take_quarantined(then: State, now: State) -> list[int]:
    """Take the pages in quarantine out of two states of one moment; return their ids, in order."""
    found = sorted(page for page, image in now.pages.items() if image.state == PageState.QUARANTINED)
    for page in found:
        now.pages.pop(page)
        then.pages.pop(page, None)
    return found


def put_into_quarantine(store: Store, damaged: Mapping[int, int]) -> list[int]:
    """Put pages into quarantine, in one commit; return which that were.

    damaged  the LSN of each page when its bytes were compared: one that was written since is left for the next look
    """
    done = []
    with store.batch(source="verify") as batch:
        for page, lsn in sorted(damaged.items()):
            try:
                facts = batch.commit.facts(page)
            except PageNotFound:
                continue
            if facts.lsn == lsn and facts.state != PageState.QUARANTINED:
                batch.set_state(page, PageState.QUARANTINED)
                done.append(page)
    return done


def restore_pages(store: Store, pages: Sequence[int], truth: State) -> list[int]:
    """Give pages in quarantine their bytes of a state not older than that, in one commit; return which that were.

    Raises PagesError with nothing changed where the state does not know a page as it is.
    """
    done = []
    with store.batch(source="heal") as batch:
        for page in pages:
            try:
                facts = batch.commit.facts(page)
            except PageNotFound:
                continue  # freed since
            if facts.state != PageState.QUARANTINED:
                continue  # healed since
            image = truth.pages.get(page)
            if image is None or image.epoch != facts.epoch or image.size_bytes != facts.size_bytes:
                raise PagesError("log does not tell what a page in quarantine must hold", where=str(page))
            batch.commit.restore(page, image.data)
            done.append(page)
    return done
