"""`stoker pages verify`, `heal`, `checkpoint`, `compact` and `sweep`: keeping stores sound and short."""

from pathlib import Path

import click
import msgspec

from stoker.cli.pages_store import as_json, looking, opened
from stoker.cli.screen import emit_json, emit_pairs, emit_text, harmless
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE, UsageError
from stoker.core.units import format_bytes
from stoker.pages.bus import Store
from stoker.pages.sweeping import sweep_dead

_KEEP = 2


@click.command("verify")
@click.argument("store")
@click.option("--quarantine", is_flag=True, help="Take pages whose bytes are not what the log gives out of use.")
@as_json
def verify(store: str, quarantine: bool, as_json: bool) -> int:
    """Prove STORE: tables, checkpoints, and that the log gives the pages. Exit code 3 when something is wrong."""
    with opened(store) if quarantine else looking(store) as found:
        wrong = found.verify(quarantine=True) if isinstance(found, Store) else found.verify()
        lsn = None if wrong else found.lsn
    if as_json:
        emit_json({"lsn": lsn, "wrong": wrong})
    else:
        emit_text("\n".join(map(harmless, wrong)) or f"sound up to LSN {lsn}")
    return EXIT_NEGATIVE if wrong else EXIT_GOOD


@click.command("heal")
@click.argument("store")
@as_json
def heal(store: str, as_json: bool) -> int:
    """Give the pages of STORE that are in quarantine the bytes that its checkpoints and its log give them."""
    with opened(store) as found:
        healed = found.heal()
    if as_json:
        emit_json({"healed": healed})
    else:
        emit_text("\n".join(f"healed page {page}" for page in healed) or "no page is in quarantine")
    return EXIT_GOOD


@click.command("checkpoint")
@click.argument("store")
@click.option("--incremental", is_flag=True, help="Leave unchanged pages in earlier checkpoints.")
@click.option(
    "--keep", type=click.IntRange(min=1), help=f"Checkpoints to keep; the log before goes. [default: {_KEEP}]"
)
@click.option("--out", default=None, help="Folder for it, instead of the store's own: one in memory has none.")
@as_json
def checkpoint(store: str, incremental: bool, keep: int | None, out: str | None, as_json: bool) -> int:
    """Write a checkpoint of STORE, while others go on writing."""
    if out is not None and keep is not None:
        raise UsageError("--keep is about the store's own checkpoints", expected="one of --keep and --out")
    with opened(store) as found:
        if out is None and found.folder is None:
            raise UsageError("store in memory has no folder for checkpoints", where=store, remedy="tell one with --out")
        if out is not None:
            Path(out).mkdir(parents=True, exist_ok=True)
        written = found.checkpoint(out, incremental=incremental, keep=keep or _KEEP)
    if as_json:
        emit_json(msgspec.to_builtins(written, enc_hook=str))
        return EXIT_GOOD
    where = written.path.name if out is None else str(written.path)
    left = f" ({written.left_pages} left where they were)" if written.left_pages else ""
    emit_text(
        f"{written.pages} pages{left}, {format_bytes(written.page_bytes)}, "
        f"stored in {format_bytes(written.stored_bytes)}: {harmless(where)}"
    )
    return EXIT_GOOD


@click.command("compact")
@click.argument("store")
@as_json
def compact(store: str, as_json: bool) -> int:
    """Shorten STORE's history to one new checkpoint: older checkpoints, and the log before it, go.

    The log goes in whole segments. Moments before what is left cannot be reached any more; asking for one says so.
    """
    with opened(store) as found:
        if found.folder is None:
            raise UsageError(
                "store in memory has no history to shorten",
                where=store,
                expected="the folder of a store",
                remedy="its ring keeps the newest frames by itself",
            )
        before = found.journal.floor_lsn
        written = found.checkpoint(keep=1)
        floor = found.journal.floor_lsn
    told = {"checkpoint_lsn": written.lsn, "floor_lsn_before": before, "floor_lsn": floor}
    if as_json:
        emit_json(told)
    else:
        emit_pairs({name.replace("_", " "): str(value) for name, value in told.items()})
    return EXIT_GOOD


@click.command("sweep")
@as_json
def sweep(as_json: bool) -> int:
    """Remove stores in memory whose processes are all gone; those with a folder stay for the next that opens them."""
    gone = sweep_dead()
    if as_json:
        emit_json({"removed": gone})
    else:
        emit_text("\n".join(f"removed {harmless(name)}" for name in gone) or "nothing to remove")
    return EXIT_GOOD
