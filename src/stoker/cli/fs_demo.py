"""`stoker fs demo`: a whole cluster on this machine, shown and torn down."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from stoker.cli.fs_volume import as_json
from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core.errors import EXIT_GOOD, EXIT_NEGATIVE
from stoker.fs.wire.stopping import StopWish

if TYPE_CHECKING:
    from stoker.fs.demo.show import Shown


@click.command("demo")
@click.option("--keep", is_flag=True, help="Leave it running until Ctrl-C.")
@click.option("--seconds", type=click.FloatRange(0.0, 1e6), default=0.0, help="Leave it running so long.")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="Empty folder to work in.")
@as_json
def demo(keep: bool, seconds: float, folder: Path | None, as_json: bool) -> int:
    """Bring up a cluster on loopback, mount it, kill parts of it, show that every byte reads, and tear it down.

    3 etcd servers, 2 masters, 12 chunk servers, a metalogger and a page. Exit code 3 when something does not hold.
    """
    from stoker.core.registry import missing_extra

    try:
        from stoker.fs.demo.show import Demo, own_folder
    except ImportError as error:
        raise missing_extra("the demo", "ha", error) from error
    tell = (lambda _: None) if as_json else (lambda text: emit_text(harmless(text)))
    with StopWish() as wish, own_folder(folder) as place:
        running = Demo(wish.wanted, tell)

        def stay(shown: "Shown") -> None:
            if not as_json:
                emit_text(harmless(shown.verdict))
                if keep or seconds:
                    emit_text("\n".join(_usage(shown)))
            running.wait(None if keep else seconds)

        shown = running.run(place, stay=stay)
    if as_json:
        emit_json({**msgspec.to_builtins(shown), "holds": shown.holds})
    return EXIT_GOOD if shown.holds else EXIT_NEGATIVE


def _usage(shown: "Shown") -> list[str]:
    """Return how to use what is running."""
    masters = shown.volume.removeprefix("master://").partition("/")[0]
    token = f"--token-file {shown.token_file}"
    files = [f"files   {shown.mountpoint}"] if shown.mountpoint else []
    return [
        f"page    {shown.page}",
        *files,
        f"list    stoker fs ls {shown.volume} / {token}",
        f"status  stoker fs status --masters {masters} {token}",
        "end     Ctrl-C",
    ]
