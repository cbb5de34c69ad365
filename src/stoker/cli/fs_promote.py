"""`stoker fs promote`: a volume of one node becomes one that masters serve."""

from typing import Any

import click
import msgspec

from stoker.cli.fs_volume import as_json, refuse_memory
from stoker.cli.screen import emit_json, emit_pairs, warn
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.core.files import redact_url


@click.command("promote")
@click.argument("volume")
@click.option("--to", "target", required=True, help="Its new place: etcd://host:port,host:port/VOLUME.")
@as_json
def promote(volume: str, target: str, as_json: bool) -> int:
    """Move VOLUME into a journal in etcd, for masters to serve, while it is in use.

    Whoever has it open is refused at the end, and told the new place. It may be interrupted and run again.
    """
    from stoker.fs.journal.promoting import promote as move
    from stoker.fs.meta.engines.urls import open_engine

    if not target.startswith("etcd://"):
        raise UsageError("new place is no journal", where=redact_url(target), expected="etcd://host:port/VOLUME")
    place = target.partition("?")[0]
    with open_engine(refuse_memory(volume)) as old, _journal(target) as new:
        done = move(old, new, place, told=(lambda _: None) if as_json else warn)
    result: dict[str, Any] = {"volume": redact_url(volume), "place": place, **msgspec.to_builtins(done)}
    if as_json:
        emit_json(result)
    else:
        emit_pairs({key: str(value) for key, value in result.items()})
    return EXIT_GOOD


def _journal(target: str) -> Any:
    """Open the journal, or make it: an earlier run may have been interrupted."""
    from stoker.fs.meta.engines.urls import open_engine

    try:
        return open_engine(target)
    except UsageError as error:
        if "no volume is here" not in error.what:
            raise
    return open_engine(target, create=True)
