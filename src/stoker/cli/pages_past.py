"""`stoker pages log`, `history`, `diff` and `replay`: what a store was."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from stoker.cli.pages_store import Look, as_json, looking, moment, page_id, page_name
from stoker.cli.screen import emit_json, emit_pairs, emit_text, harmless, warn
from stoker.core.clock import utc_text_of_ns
from stoker.core.errors import EXIT_FAILED, EXIT_GOOD, UsageError
from stoker.core.units import format_bytes
from stoker.pages.errors import CorruptPages, PageNotFound
from stoker.pages.frames import Frame, FrameType
from stoker.pages.history import PageChange, State, diff_states, write_state

_LSN = click.IntRange(min=0)


@click.command("log")
@click.argument("store")
@click.option("--since", type=_LSN, default=0, help="First LSN.")
@click.option("--until", type=_LSN, default=None, help="Last LSN.")
@click.option("--page", default=None, help="Frames of this page only: an id or a name.")
@click.option("--source", default=None, help="Frames of this writer only.")
@click.option("--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="Stop after so many frames.")
@as_json
def log(
    store: str, since: int, until: int | None, page: str | None, source: str | None, limit: int, as_json: bool
) -> int:
    """Print the frames of STORE's log, oldest first; `;` ends a commit.

    Of a damaged log the frames before the damage are printed, and the exit code is 1.
    """
    with looking(store) as look:
        number = None if page is None else page_id(look, page)
        names = look.sources()
        frames = look.scan(since=since, until=until, page=number, source=source)
        rows, wrong = _readable(look, (_frame_row(frame, names) for frame in islice(frames, limit)))
    if as_json:
        emit_json({"frames": rows, "wrong": wrong})
    else:
        emit_text("\n".join(_frame_line(row) for row in rows) or "no frames")
    if wrong:
        warn(wrong)
    return EXIT_FAILED if wrong else EXIT_GOOD


def _readable(look: Look, rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Return the rows before any damage, and what is wrong with the log, empty where it is sound."""
    found: list[dict[str, Any]] = []
    try:
        found.extend(rows)
        look.require_sound_log()
    except CorruptPages as error:
        return found, str(error)
    return found, ""


def _frame_row(frame: Frame, names: dict[int, str]) -> dict[str, Any]:
    kind = FrameType(frame.type)
    told = bytes(frame.payload).decode(errors="replace") if kind in {FrameType.MARK, FrameType.SOURCE} else ""
    return {
        "lsn": frame.lsn,
        "time": utc_text_of_ns(frame.time_ns),
        "type": kind.name,
        "page": frame.page,
        "epoch": frame.epoch,
        "payload_bytes": len(frame.payload),
        "source": names.get(frame.source, f"source {frame.source}" if frame.source else ""),
        "name": told,
        "last": frame.last,
    }


def _frame_line(row: dict[str, Any]) -> str:
    where = f"page {row['page']} epoch {row['epoch']}" if row["page"] else harmless(repr(row["name"]))
    by = f" by {harmless(row['source'])}" if row["source"] and row["type"] != FrameType.SOURCE.name else ""
    what = f"{row['lsn']:>8} {row['time']} {row['type']:<10} {where} {row['payload_bytes']} bytes"
    return f"{what}{by}{' ;' if row['last'] else ''}"


@click.command("history")
@click.argument("store")
@click.argument("page")
@as_json
def history(store: str, page: str, as_json: bool) -> int:
    """Print every version of PAGE (an id or a name) that STORE's log keeps."""
    with looking(store) as look:
        try:
            versions = look.history(page_id(look, page))
        except PageNotFound as error:
            raise UsageError(
                "no page had this id", where=page, expected="an id or a name", remedy=f"see `stoker pages ls {store}`"
            ) from error
    rows = [
        {
            "epoch": version.epoch,
            "lsn": version.lsn,
            "time": utc_text_of_ns(version.time_ns),
            "source": version.source,
            "kind": version.kind,
            "frame_bytes": version.frame_bytes,
        }
        for version in versions
    ]
    if as_json:
        emit_json({"versions": rows})
        return EXIT_GOOD
    lines = [
        f"epoch {row['epoch']:>6} lsn {row['lsn']:>8} {row['time']} {row['kind']:<8} {row['frame_bytes']} bytes"
        f"{' by ' + harmless(str(row['source'])) if row['source'] else ''}"
        for row in rows
    ]
    emit_text("\n".join(lines) or "no commit that the log keeps changed it")
    return EXIT_GOOD


@click.command("diff")
@click.argument("store")
@click.argument("old")
@click.argument("new", default="now")
@as_json
def diff(store: str, old: str, new: str, as_json: bool) -> int:
    """Print what differs between two moments of STORE.

    A moment is an LSN, mark:NAME, epoch:PAGE@N, a UTC time such as 2026-01-31T12:00:00Z, or now.
    """
    with looking(store) as look:
        before, after = look.replay(moment(look, old)), look.replay(moment(look, new))
    found = diff_states(before, after)
    if as_json:
        emit_json(
            {
                "old_lsn": before.lsn,
                "new_lsn": after.lsn,
                "created": [_named(after, page) for page in found.created],
                "freed": [_named(before, page) for page in found.freed],
                "changed": [{**_named(after, one.page), **_change(one)} for one in found.changed],
            }
        )
        return EXIT_GOOD
    lines = [f"made:    {_label(after, page)}" for page in found.created]
    lines += [f"freed:   {_label(before, page)}" for page in found.freed]
    lines += [f"changed: {_label(after, one.page)}, {_change_text(one)}" for one in found.changed]
    emit_text("\n".join(lines) or "nothing differs")
    return EXIT_GOOD


def _named(state: State, page: int) -> dict[str, Any]:
    return {"page": page, "name": page_name(state.pages[page])}


def _label(state: State, page: int) -> str:
    name = page_name(state.pages[page])
    return f"page {page}" + (f" {name}" if name else "")


def _change(change: PageChange) -> dict[str, Any]:
    return {
        "changed_bytes": change.changed_bytes,
        "ranges": [list(one) for one in change.ranges],
        "resized": change.resized,
        "meta_changed": change.meta_changed,
    }


def _change_text(change: PageChange) -> str:
    count = len(change.ranges)
    told = [f"{change.changed_bytes} bytes in {count} range{'' if count == 1 else 's'}"] if count else []
    told += ["resized"] if change.resized else []
    told += ["metadata"] if change.meta_changed else []
    return ", ".join(told)


@click.command("replay")
@click.argument("store")
@click.option(
    "--to",
    "to",
    default="now",
    show_default=True,
    help="An LSN, mark:NAME, epoch:PAGE@N, a UTC time such as 2026-01-31T12:00:00Z, or now.",
)
@click.option("--out", default=None, help="Folder for a checkpoint of what was found.")
@as_json
def replay(store: str, to: str, out: str | None, as_json: bool) -> int:
    """Make STORE's pages as they were at a moment, and print a digest of them; STORE stays as it is."""
    with looking(store) as look:
        state, uuid = look.replay(moment(look, to)), look.uuid
    told: dict[str, Any] = {
        "lsn": state.lsn,
        "time": utc_text_of_ns(state.time_ns) if state.time_ns else "",
        "pages": len(state.pages),
        "page_bytes": state.page_bytes,
        "digest": state.digest(),
    }
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        told["checkpoint"] = str(write_state(Path(out), state, uuid).path)
    if as_json:
        emit_json(told)
    else:
        shown = {**told, "page_bytes": f"{state.page_bytes} ({format_bytes(state.page_bytes)})"}
        emit_pairs({name.replace("_", " "): str(value) for name, value in shown.items()})
    return EXIT_GOOD
