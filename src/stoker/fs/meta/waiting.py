"""What another session's hold of names stands in the way of: it is asked for, and done when it is given back."""

import time
from collections.abc import Callable, Sequence
from typing import Final

from stoker.core.clock import monotonic_ns
from stoker.core.errors import UnavailableError
from stoker.fs.meta.answers import Answer, Refusal
from stoker.fs.meta.calls import Call
from stoker.fs.meta.faults import HELD
from stoker.fs.meta.holdcalls import AskNames

_PAUSE_SECONDS: Final = 0.005
_PAUSE_SECONDS_MAX: Final = 0.05


def wait_for_names(
    batch: Sequence[Call],
    answers: list[Answer],
    submit: Callable[[Sequence[Call]], list[Answer]],
    patience_ns: int,
) -> None:
    """Do those calls of a batch again that were refused as HELD, until they are not, and put their answers in place.

    A hold that nobody makes longer is over within seconds. Raises UnavailableError when the patience is spent before.
    """
    deadline_ns = monotonic_ns() + patience_ns
    for place, call in enumerate(batch):
        pause_seconds = 0.0
        while isinstance(answer := answers[place], Refusal) and answer.errno == HELD:
            if monotonic_ns() > deadline_ns:
                raise UnavailableError("names of a directory are not given back", where=f"inode {answer.detail}")
            asking = Call(AskNames(int(answer.detail)), session=call.session)
            time.sleep(pause_seconds)
            pause_seconds = min(max(2 * pause_seconds, _PAUSE_SECONDS), _PAUSE_SECONDS_MAX)
            answers[place] = submit([asking, call])[1]
