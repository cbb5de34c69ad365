"""`stoker fs metalogger` and `stoker fs restore`: keep what a journal says, and have a past state of it again."""

import threading
from pathlib import Path
from typing import Any

import click
import msgspec

from stoker.cli.fs_volume import as_json, refuse_memory
from stoker.cli.screen import emit_json, emit_line, emit_pairs, emit_text
from stoker.core.clock import ns_of_utc, utc_text_of_ns
from stoker.core.errors import EXIT_GOOD, UsageError


@click.command("metalogger")
@click.option("--etcd", required=True, help="Addresses of etcd's members: host:port, several with commas.")
@click.option("--volume", required=True, help="The volume's name in etcd.")
@click.option("--state", required=True, type=click.Path(path_type=Path), help="Folder of the metalogger's copy.")
@click.option("--archive", required=True, help="URL of the store where snapshots and entries are kept.")
@click.option("--snapshot-seconds", default=3600.0, show_default=True, help="How often a snapshot is made.")
@click.option("--retention-days", default=30.0, show_default=True, help="How long both are kept.")
@as_json
def metalogger(
    etcd: str,
    volume: str,
    state: Path,
    archive: str,
    snapshot_seconds: float,
    retention_days: float,
    as_json: bool,
) -> int:
    """Follow a volume's journal until stopped, and keep snapshots and all entries between them."""
    from stoker.core.registry import missing_extra

    try:
        from stoker.fs.journal.client import GrpcEtcd, addresses_in
        from stoker.fs.journal.engine import find_journal
    except ImportError as error:
        raise missing_extra("the metalogger", "ha", error) from error
    from stoker.fs.journal.entries import Keys
    from stoker.fs.journal.folder import CopyFolder
    from stoker.fs.journal.logger import LoggerOptions, MetaLogger
    from stoker.fs.journal.state import Following
    from stoker.storage.opening import open_store

    options = LoggerOptions(snapshot_seconds=snapshot_seconds, retention_seconds=retention_days * 86_400)
    client = GrpcEtcd(addresses_in(etcd))
    try:
        keys = Keys(volume)
        number = find_journal(client, keys, f"etcd://{etcd}/{volume}")
        store, folder = open_store(archive, create=True), CopyFolder(state, number)
        try:
            logger = MetaLogger(client, keys, number, Following(folder.copy), store, options)
            told = {"volume": volume, "entry": logger.number}
            emit_line(told) if as_json else emit_text(f"following {volume} from entry {logger.number}")
            logger.run(threading.Event(), (lambda _: None) if as_json else emit_text)
        finally:
            folder.close()
            store.close()
    finally:
        client.close()
    return EXIT_GOOD


@click.command("restore")
@click.argument("volume")
@click.option("--archive", required=True, help="URL of the store that a metalogger fills.")
@click.option("--to", "moment", default="", help="A revision, or a time such as 2026-01-31T12:00:00Z; else the newest.")
@as_json
def restore(volume: str, archive: str, moment: str, as_json: bool) -> int:
    """Make a new VOLUME, sqlite:///x.db or lmdb:///folder, with the state of a past moment."""
    from stoker.fs.journal.logger import restore as have_again
    from stoker.fs.meta.engines.urls import open_engine
    from stoker.storage.opening import open_store

    revision, time_ns = _moment(moment)
    store = open_store(archive)
    try:
        with open_engine(refuse_memory(volume), create=True) as target:
            done = have_again(store, target, revision=revision, time_ns=time_ns)
    finally:
        store.close()
    told: dict[str, Any] = {"volume": volume, **msgspec.to_builtins(done), "time": utc_text_of_ns(done.time_ns)}
    if as_json:
        emit_json(told)
    else:
        emit_pairs({key: str(value) for key, value in told.items()})
    return EXIT_GOOD


def _moment(text: str) -> tuple[int | None, int | None]:
    """Return a revision or a time. Raises UsageError for what is neither."""
    if not text:
        return None, None
    if text.isdigit():
        return int(text), None
    try:
        return None, ns_of_utc(text)
    except ValueError as error:
        raise UsageError("moment is neither a revision nor a time", where=text, got=str(error)) from error
