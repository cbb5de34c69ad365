"""How the commands of `stoker pages` find a store, its pages and its moments by what was typed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from stoker.cli.screen import harmless
from stoker.core.clock import ns_of_utc
from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.registry import nearest
from stoker.pages.arena.mapping import named_arenas
from stoker.pages.bus import Store
from stoker.pages.errors import PageNotFound
from stoker.pages.folder import StoreFolder
from stoker.pages.history import Target
from stoker.pages.images import PageImage
from stoker.pages.resting import RestingStore, at_rest
from stoker.pages.timeline import Timeline

Function = TypeVar("Function", bound=Callable[..., Any])
Look = Timeline | RestingStore
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_SYSTEM = "system:"
_MOMENTS = "an LSN, mark:NAME, epoch:PAGE@N, a UTC time such as 2026-01-31T12:00:00Z, or now"


@contextmanager
def looking(where: str) -> Iterator[Look]:
    """Give a store to look at: as it lies in its folder when nobody has it open, else opened. Raises UsageError."""
    if Path(where).is_dir():
        with at_rest(_folder(where)) as resting:
            if resting is not None:
                yield resting
                return
    with opened(where) as store:
        yield store.journal


@contextmanager
def opened(where: str) -> Iterator[Store]:
    """Open the store of a folder, or attach one in memory by its name. Raises UsageError where there is none."""
    if Path(where).is_dir():
        _folder(where)  # opening would make one
        store = Store.open(where)
    elif where in named_arenas():
        store = Store.attach(where)
    else:
        raise UsageError(
            "no store of pages is here",
            where=where,
            expected="the folder of a store, or the name of one in memory",
            remedy="see `stoker pages ls` for those in memory",
        )
    with store:
        yield store


def _folder(where: str) -> StoreFolder:
    try:
        return StoreFolder.open(Path(where))
    except PageNotFound as error:
        raise UsageError(
            "folder holds no store of pages", where=where, expected="a folder that Store.open made"
        ) from error


# -- pages -----------------------------------------------------------------------------------------------------------


def page_name(image: PageImage) -> str:
    """Return a page's name as it is printed; that of a page of the store's own begins with `system:`."""
    return shown_name(str(image.facts().get("name", "")))


def shown_name(name: str) -> str:
    """Return a name without what could steer a terminal."""
    return harmless(name.replace("\0", _SYSTEM, 1) if name.startswith("\0") else name)


def page_id(look: Look, which: str) -> int:
    """Return the id that an id or a name tells. Raises UnknownNameError for a name that no page has."""
    if which.isdecimal():
        return int(which)
    names = {str(image.facts().get("name", "")): image.page for image in look.images()}
    names.pop("", None)
    for name in (which, which.replace(_SYSTEM, "\0", 1)):
        if name in names:
            return names[name]
    close = nearest(which, list(names))
    raise UnknownNameError(
        "no page has this name", where=which, remedy=f"did you mean {close!r}?" if close else "see `stoker pages ls`"
    )


# -- moments ---------------------------------------------------------------------------------------------------------


def moment(look: Look, text: str) -> Target:
    """Return the moment that was typed. Raises UsageError."""
    if text == "now":
        return Target()
    if text.isdecimal():
        return Target(lsn=int(text))
    kind, _, told = text.partition(":")
    if kind == "mark" and told:
        return Target(mark=told)
    page, _, epoch = told.rpartition("@")
    if kind == "epoch" and page and epoch.isdecimal():
        return Target(page=page_id(look, page), epoch=int(epoch))
    try:
        return Target(time_ns=ns_of_utc(text))
    except ValueError as error:
        raise UsageError("moment cannot be understood", where=text, expected=_MOMENTS) from error
