"""`stoker pages ls`, `stat` and `top`: what a store is now."""

from typing import Any, Final

import click
import msgspec

from stoker.cli.pages_store import as_json, looking, opened, page_name
from stoker.cli.screen import emit_json, emit_line, emit_pairs, emit_text, harmless, reader_is_gone
from stoker.core.clock import monotonic_ns, sleep
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.core.units import format_bytes
from stoker.pages.frames import PageState
from stoker.pages.images import SYSTEM, PageImage
from stoker.pages.metrics import StoreStats, metrics_text
from stoker.pages.sweeping import MemoryStore, memory_stores

_INTERVAL_SECONDS_MAX: Final = 86_400.0


@click.command("ls")
@click.argument("store", required=False)
@click.option("--system", is_flag=True, help="The store's own pages too.")
@as_json
def ls(store: str | None, system: bool, as_json: bool) -> int:
    """List the pages of STORE; without it, the stores in this host's memory."""
    if store is None:
        if system:
            raise UsageError("--system is about the pages of a store", expected="STORE")
        return _list_stores(as_json)
    with looking(store) as look:
        rows = [_page_row(image, look.state_of(image)) for image in look.images() if system or not image.flags & SYSTEM]
    if as_json:
        emit_json({"pages": rows})
        return EXIT_GOOD
    lines = [f"{'id':>12} {'size':>10} {'epoch':>8} {'lsn':>8} {'state':<11} name"]
    lines += [
        f"{row['page']:>12} {format_bytes(row['size_bytes']):>10} {row['epoch']:>8} {row['lsn']:>8} "
        f"{row['state']:<11} {row['name']}".rstrip()
        for row in rows
    ]
    emit_text("\n".join(lines) if rows else "no pages")
    return EXIT_GOOD


def _page_row(image: PageImage, state: PageState) -> dict[str, Any]:
    return {
        "page": image.page,
        "name": page_name(image),
        "size_bytes": image.size_bytes,
        "epoch": image.epoch,
        "lsn": image.lsn,
        "state": state.name.lower(),
    }


def _list_stores(as_json: bool) -> int:
    stores = memory_stores()
    if as_json:
        emit_json({"stores": msgspec.to_builtins(stores)})
        return EXIT_GOOD
    lines = [f"{'pages':>8} {'bytes':>10} {'lsn':>8} {'processes':>9}  name"]
    lines += [_store_line(one) for one in stores]
    emit_text("\n".join(lines) if stores else "no stores in memory")
    return EXIT_GOOD


def _store_line(one: MemoryStore) -> str:
    if one.wrong:
        return f"{'':>38}  {harmless(one.name)}: {harmless(one.wrong)}"
    told = f"{one.pages:>8} {format_bytes(one.page_bytes):>10} {one.lsn:>8} {one.processes:>9}  {harmless(one.name)}"
    return told + (" (of a folder)" if one.in_folder else "")


@click.command("stat")
@click.argument("store")
@click.option("--prometheus", is_flag=True, help="Print the text format of Prometheus.")
@as_json
def stat(store: str, prometheus: bool, as_json: bool) -> int:
    """Print what STORE is and did."""
    if prometheus and as_json:
        raise UsageError("--prometheus and --json are two ways to print the same", expected="one of them")
    with looking(store) as look:
        stats = look.numbers()
    if prometheus:
        emit_text(metrics_text(stats).rstrip("\n"))
    elif as_json:
        emit_json(msgspec.to_builtins(stats))
    else:
        told = msgspec.to_builtins(stats)
        pairs = {**told, **told.pop("counters")}
        del pairs["counters"]
        emit_pairs({name.replace("_", " "): _value_text(name, value) for name, value in pairs.items()})
    return EXIT_GOOD


def _value_text(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {kind}" for kind, count in value.items()) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value} ({format_bytes(value)})" if name.endswith("_bytes") and value >= 1024 else str(value)


@click.command("top")
@click.argument("store")
@click.option("--interval", type=float, default=1.0, show_default=True, help="Seconds between two lines.")
@click.option("--count", type=click.IntRange(min=0), default=0, help="Lines to print; 0 until interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def top(store: str, interval: float, count: int, as_json: bool) -> int:
    """Print what STORE does, a line an interval: commits, bytes of deltas, unflushed log, snapshots' versions."""
    if not 0 < interval <= _INTERVAL_SECONDS_MAX:
        raise UsageError("interval must be positive", expected="seconds, at most a day", got=str(interval))
    with opened(store) as watched:
        if not as_json:
            emit_text(
                f"{'commits/s':>10} {'frames/s':>10} {'delta B/s':>12} {'pages':>8} {'unflushed':>10} {'retired':>8}"
            )
        before, before_ns, lines = watched.stats(), monotonic_ns(), 0
        while (not count or lines < count) and not reader_is_gone():
            sleep(interval)
            now, now_ns = watched.stats(), monotonic_ns()
            row = _rates(before, now, (now_ns - before_ns) / 1e9)
            emit_line(row) if as_json else emit_text(_rates_line(row))
            before, before_ns, lines = now, now_ns, lines + 1
    return EXIT_GOOD


def _rates(before: StoreStats, now: StoreStats, seconds: float) -> dict[str, Any]:
    counted = ("commits", "frames", "delta_bytes")
    rates = {f"{name}_per_second": (now.counters[name] - before.counters[name]) / seconds for name in counted}
    return {
        **rates,
        "lsn": now.lsn,
        "pages": now.pages,
        "log_unflushed_bytes": now.log_unflushed_bytes,
        "retired_extents": now.retired_extents,
    }


def _rates_line(row: dict[str, Any]) -> str:
    return (
        f"{row['commits_per_second']:>10.0f} {row['frames_per_second']:>10.0f} {row['delta_bytes_per_second']:>12.0f} "
        f"{row['pages']:>8} {format_bytes(row['log_unflushed_bytes']):>10} {row['retired_extents']:>8}"
    )
