"""`stoker pages`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from stoker.cli.groups import NearestGroup
from stoker.cli.screen import emit_json, emit_pairs, emit_text
from stoker.core.clock import sleep, utc_text
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE, UsageError
from stoker.core.units import format_bytes
from stoker.pages.arena.mapping import named_arenas
from stoker.pages.bus import Store
from stoker.pages.folder import StoreFolder
from stoker.pages.frames import FrameType, PageState
from stoker.pages.history import Target
from stoker.pages.journal.scan import scan
from stoker.pages.sweeping import sweep_dead

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@contextmanager
def _opened(where: str) -> Iterator[Store]:
    """Open the store of a folder, or attach one in memory by its name."""
    if Path(where).is_dir():
        StoreFolder.open(Path(where))  # never makes one
        store = Store.open(where)
    elif where in named_arenas():
        store = Store.attach(where)
    else:
        raise UsageError("no store of pages is here", where=where, remedy="see `stoker pages ls` for those in memory")
    with store:
        yield store


@click.group("pages", cls=NearestGroup)
def command() -> None:
    """Look at stores of pages: versioned shared memory with a log.

    STORE is a folder, or the name of a store in memory.
    """


@command.command("ls")
@click.argument("store", required=False)
@click.option("--system", is_flag=True, help="The store's own pages too.")
@_JSON
def ls(store: str | None, system: bool, as_json: bool) -> int:
    """List the pages of STORE; without it, the stores in this host's memory."""
    if store is None:
        names = named_arenas()
        emit_json({"stores": names}) if as_json else emit_text("\n".join(names) or "no stores in memory")
        return EXIT_GOOD
    with _opened(store) as opened:
        rows = [_page_row(page.id, opened) for page in opened.pages(system=system)]
    if as_json:
        emit_json({"pages": rows})
    else:
        lines = [f"{'id':>12} {'size':>10} {'epoch':>8} {'lsn':>8} state  name"]
        lines += [
            f"{row['page']:>12} {format_bytes(row['size_bytes']):>10} {row['epoch']:>8} {row['lsn']:>8} "
            f"{row['state']:<6} {row['name']}"
            for row in rows
        ]
        emit_text("\n".join(lines))
    return EXIT_GOOD


def _page_row(page: int, store: Store) -> dict[str, Any]:
    facts = store.arena.facts(page)
    return {
        "page": page,
        "name": str(store.meta_of(page).get("name", "")).replace("\0", "system:"),
        "size_bytes": facts.size_bytes,
        "epoch": facts.epoch,
        "lsn": facts.lsn,
        "state": PageState(facts.state).name.lower(),
    }


@command.command("stat")
@click.argument("store")
@click.option("--prometheus", is_flag=True, help="Print the text format of Prometheus.")
@_JSON
def stat(store: str, prometheus: bool, as_json: bool) -> int:
    """Print what STORE is and did."""
    with _opened(store) as opened:
        if prometheus:
            emit_text(opened.metrics_text().rstrip("\n"))
            return EXIT_GOOD
        stats = msgspec.to_builtins(opened.stats())
    if as_json:
        emit_json(stats)
    else:
        counters = stats.pop("counters")
        emit_pairs({name.replace("_", " "): str(value) for name, value in {**stats, **counters}.items()})
    return EXIT_GOOD


@command.command("log")
@click.argument("store")
@click.option("--since", type=int, default=0, help="First LSN.")
@click.option("--until", type=int, default=None, help="Last LSN.")
@click.option("--page", type=int, default=None, help="Frames of this page only.")
@click.option("--source", default=None, help="Frames of this writer only.")
@click.option("--limit", type=int, default=1000, show_default=True, help="Stop after so many frames.")
@_JSON
def log(
    store: str, since: int, until: int | None, page: int | None, source: str | None, limit: int, as_json: bool
) -> int:
    """Print the frames of STORE's log, oldest first; of a folder, without opening the store."""
    rows: list[dict[str, Any]] = []
    if Path(store).is_dir():
        frames = scan(StoreFolder.open(Path(store)).log, since=since, until=until, page=page, source=source)
        rows = [_frame_row(frame) for frame, _ in zip(frames, range(limit), strict=False)]
    else:
        with _opened(store) as opened:
            found = opened.journal.scan(since=since, until=until, page=page, source=source)
            rows = [_frame_row(frame) for frame, _ in zip(found, range(limit), strict=False)]
    if as_json:
        emit_json({"frames": rows})
    else:
        emit_text(
            "\n".join(
                f"{row['lsn']:>8} {row['time']} {row['type']:<10} page {row['page']} epoch {row['epoch']} "
                f"{row['payload_bytes']} bytes{' ;' if row['last'] else ''}"
                for row in rows
            )
        )
    return EXIT_GOOD


def _frame_row(frame: Any) -> dict[str, Any]:
    return {
        "lsn": frame.lsn,
        "time": utc_text(frame.time_ns / 1e9),
        "type": FrameType(frame.type).name,
        "page": frame.page,
        "epoch": frame.epoch,
        "payload_bytes": len(frame.payload),
        "last": frame.last,
    }


@command.command("history")
@click.argument("store")
@click.argument("page")
@_JSON
def history(store: str, page: str, as_json: bool) -> int:
    """Print every version of PAGE (an id or a name) that STORE's log keeps."""
    with _opened(store) as opened:
        versions = opened.history(opened.page(int(page) if page.isdigit() else page))
    rows = [
        {
            "epoch": version.epoch,
            "lsn": version.lsn,
            "time": utc_text(version.time_ns / 1e9),
            "source": version.source,
            "kind": version.kind,
            "frame_bytes": version.frame_bytes,
        }
        for version in versions
    ]
    if as_json:
        emit_json({"versions": rows})
    else:
        emit_text(
            "\n".join(
                f"epoch {row['epoch']:>6} lsn {row['lsn']:>8} {row['time']} {row['kind']:<8} {row['frame_bytes']} bytes"
                f"{' by ' + str(row['source']) if row['source'] else ''}"
                for row in rows
            )
        )
    return EXIT_GOOD


def _moment(text: str) -> Target:
    """Return the moment that `lsn`, `mark:NAME` or `now` tells."""
    if text == "now":
        return Target()
    return Target(lsn=int(text)) if text.isdigit() else Target(mark=text.removeprefix("mark:"))


@command.command("diff")
@click.argument("store")
@click.argument("old")
@click.argument("new", default="now")
@_JSON
def diff(store: str, old: str, new: str, as_json: bool) -> int:
    """Print what differs between two moments of STORE: an LSN, `mark:NAME`, or `now`."""
    with _opened(store) as opened:
        found = opened.diff(_moment(old), _moment(new))
    if as_json:
        emit_json(msgspec.to_builtins(found))
        return EXIT_GOOD
    lines = [f"made: page {page}" for page in found.created] + [f"freed: page {page}" for page in found.freed]
    lines += [
        f"changed: page {change.page}, {change.changed_bytes} bytes in {len(change.ranges)} ranges"
        for change in found.changed
    ]
    emit_text("\n".join(lines) or "nothing differs")
    return EXIT_GOOD


@command.command("verify")
@click.argument("store")
@_JSON
def verify(store: str, as_json: bool) -> int:
    """Prove STORE: tables, checkpoints, and that the log gives the pages. Exit 3 when something is wrong."""
    with _opened(store) as opened:
        wrong, lsn = opened.verify(), opened.lsn
    if as_json:
        emit_json({"lsn": lsn, "wrong": wrong})
    else:
        emit_text("\n".join(wrong) or f"sound up to LSN {lsn}")
    return EXIT_NEGATIVE if wrong else EXIT_GOOD


@command.command("replay")
@click.argument("store")
@click.argument("moment", default="now")
@click.option("--out", default=None, help="Folder for a checkpoint of what was found.")
@_JSON
def replay(store: str, moment: str, out: str | None, as_json: bool) -> int:
    """Make STORE's pages as they were at MOMENT (an LSN, `mark:NAME`, `now`), and print a digest."""
    target = _moment(moment)
    with _opened(store) as opened:
        state = opened.replay(lsn=target.lsn, mark=target.mark)
    told: dict[str, Any] = {
        "lsn": state.lsn,
        "pages": len(state.pages),
        "page_bytes": state.page_bytes,
        "digest": state.digest(),
    }
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        with Store.of_state(state) as past:
            told["checkpoint"] = str(past.checkpoint(out).path)
    if as_json:
        emit_json(told)
    else:
        emit_pairs({name.replace("_", " "): str(value) for name, value in told.items()})
    return EXIT_GOOD


@command.command("checkpoint")
@click.argument("store")
@click.option("--incremental", is_flag=True, help="Leave unchanged pages in earlier checkpoints.")
@click.option("--keep", type=int, default=2, show_default=True, help="Checkpoints to keep; the log before goes.")
@_JSON
def checkpoint(store: str, incremental: bool, keep: int, as_json: bool) -> int:
    """Write a checkpoint of STORE into its folder."""
    with _opened(store) as opened:
        written = opened.checkpoint(incremental=incremental, keep=keep)
    if as_json:
        emit_json({**msgspec.to_builtins(written, enc_hook=str)})
    else:
        emit_text(
            f"{written.pages} pages, {format_bytes(written.page_bytes)}, stored in {format_bytes(written.stored_bytes)}"
            f" ({written.left_pages} pages left where they were): {written.path.name}"
        )
    return EXIT_GOOD


@command.command("compact")
@click.argument("store")
@_JSON
def compact(store: str, as_json: bool) -> int:
    """Shorten STORE's history to one new checkpoint: older checkpoints, and the log before it, go.

    Moments before the checkpoint cannot be reached any more; asking for one says so.
    """
    with _opened(store) as opened:
        before = opened.journal.floor_lsn
        written = opened.checkpoint(keep=1)
        floor = opened.journal.floor_lsn
    told = {"checkpoint_lsn": written.lsn, "floor_lsn_before": before, "floor_lsn": floor}
    if as_json:
        emit_json(told)
    else:
        emit_pairs({name.replace("_", " "): str(value) for name, value in told.items()})
    return EXIT_GOOD


@command.command("sweep")
@_JSON
def sweep(as_json: bool) -> int:
    """Remove stores in memory whose processes are all gone; those with a folder stay for the next that opens them."""
    gone = sweep_dead()
    emit_json({"removed": gone}) if as_json else emit_text("\n".join(f"removed {name}" for name in gone) or "nothing")
    return EXIT_GOOD


@command.command("top")
@click.argument("store")
@click.option("--interval", type=float, default=1.0, show_default=True, help="Seconds between two lines.")
@click.option("--count", type=int, default=0, help="Lines to print; 0 until interrupted.")
def top(store: str, interval: float, count: int) -> int:
    """Print what STORE does, a line an interval: commits, bytes of deltas, unflushed log, snapshots' versions."""
    if interval <= 0:
        raise UsageError("interval must be positive", got=str(interval))
    with _opened(store) as opened:
        emit_text(f"{'commits/s':>10} {'frames/s':>10} {'delta B/s':>12} {'pages':>8} {'unflushed':>10} {'retired':>8}")
        before, lines = opened.stats(), 0
        while not count or lines < count:
            sleep(interval)
            now = opened.stats()
            rates = [
                (now.counters[name] - before.counters[name]) / interval for name in ("commits", "frames", "delta_bytes")
            ]
            emit_text(
                f"{rates[0]:>10.0f} {rates[1]:>10.0f} {rates[2]:>12.0f} {now.pages:>8} "
                f"{format_bytes(now.log_unflushed_bytes):>10} {now.retired_extents:>8}"
            )
            before, lines = now, lines + 1
    return EXIT_GOOD
