"""Which bytes are shown already, after an attempt of which nobody knows how it ended.

A slice that is one file's alone tells by itself: it is shown, or was. A pack tells of some file; so the file is looked
at. One in which the part does not show is written anew: it was not shown, or somebody has written over it since. Then
it is as if ours came later, for it was never acknowledged. What is appended is never in a pack: it would come twice.
"""

from collections.abc import Sequence

from stoker.fs.client.packs import Part
from stoker.fs.client.runs import Run
from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Shown
from stoker.fs.meta.calls import Peek


def runs_shown(works: Works, ino: int, runs: Sequence[Run]) -> list[Run]:
    """Return the runs that are shown; packed ones that are not are to be stored anew. Raises what asking raises."""
    stored = [(run, run.pieces[0].part) for run in runs]
    alone = [part.slice for _, part in stored if part is not None and part.is_whole]
    known = works.shown_slices(alone) if alone else set()
    packed = [(run, part) for run, part in stored if part is not None and not part.is_whole]
    shown = works.ask(Peek(ino), session=0).shown if packed else ()
    done = [run for run, part in stored if part is not None and part.is_whole and part.slice in known]
    for run, part in packed:
        if _shows(shown, part):
            done.append(run)
        else:
            for piece in run.pieces:
                piece.put_into(None)
    return done


def _shows(shown: Sequence[Shown], part: Part) -> bool:
    extents = (one.extent for one in shown if one.extent.id == part.slice.id)
    return any(one.offset < part.offset + part.length and part.offset < one.offset + one.length for one in extents)
