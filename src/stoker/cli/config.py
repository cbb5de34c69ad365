"""`stoker config`: where values come from."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from stoker.bench.run.explaining import Explained, explain_dlio, explain_option, named, unknown
from stoker.bench.run.options import FEED, GEN, TRAINING
from stoker.cli.groups import NearestGroup
from stoker.cli.rows import read_config, toml_places
from stoker.cli.screen import emit_json, emit_text, harmless
from stoker.core.errors import EXIT_GOOD, UsageError
from stoker.core.options import Option, candidates

ROWS: Final[dict[tuple[str, ...], tuple[Option, ...]]] = {
    ("run", "training"): TRAINING,
    ("feed",): FEED,
    ("gen",): GEN,
    ("plan",): TRAINING,
}


@click.group("config", cls=NearestGroup)
def command() -> None:
    """Tell where a value comes from: flag, environment, file, preset or default; the first that is given wins."""


@command.command("explain", context_settings={"ignore_unknown_options": True})
@click.argument("key")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND LINE...]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def explain(key: str, words: tuple[str, ...], as_json: bool) -> int:
    """Tell which value of KEY wins in a command line, over which others, and where each was written.

    KEY is an option (read-threads, --read-threads) or, for dlio and mlperf, a key of the workload (reader.batch_size).
    The command line stands behind `--` and is not run. Without one, KEY is looked for in run training, feed and gen.
    """
    line = list(words[1:] if words[:1] == ("stoker",) else words)
    found = _explained(key, line).safe()
    if as_json:
        emit_json(msgspec.to_builtins(found))
    else:
        emit_text("\n".join(_lines(found)))
    return EXIT_GOOD


def _explained(key: str, line: list[str]) -> Explained:
    if not line:
        return _anywhere(key)
    if line[0] == "dlio":
        return explain_dlio(_dlio_words(line[1:]), key)
    if line[0] == "mlperf":
        return _mlperf(key, line[1:])
    for words, rows in ROWS.items():
        if tuple(line[: len(words)]) == words:
            return _of_rows(key, rows, _given(words, line[len(words) :]))
    known = ", ".join((*(" ".join(words) for words in ROWS), "dlio", "mlperf"))
    raise UsageError("no options of that command are known here", where=line[0], expected=known)


def _anywhere(key: str) -> Explained:
    for rows in ROWS.values():
        if named(rows, key) is not None:
            return _of_rows(key, rows, {})
    names = dict.fromkeys(option.name for rows in ROWS.values() for option in rows)
    raise unknown(key, list(names))


def _of_rows(key: str, rows: Sequence[Option], given: dict[str, Any]) -> Explained:
    option = named(rows, key)
    if option is None:
        raise unknown(key, [row.name for row in rows])
    file = Path(given["config"]) if given.get("config") else None
    values, places = (read_config(file), toml_places(file)) if file is not None else ({}, {})
    found = candidates(rows, flags=given, file=values, environment=os.environ, places=places)
    return explain_option(option, found[option.name], "--config")


def _given(words: Sequence[str], arguments: list[str]) -> dict[str, Any]:
    """Return what the command's own parser makes of its arguments; nothing is run."""
    found: click.Command = importlib.import_module(f"stoker.cli.{words[0]}").command
    for word in words[1:]:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None
        found = inner
    return dict(found.make_context(" ".join(words), list(arguments)).params)


def _dlio_words(arguments: list[str]) -> list[str]:
    from stoker.cli.dlio import command as dlio

    return list(dlio.make_context("dlio", list(arguments)).params["words"])


def _mlperf(key: str, arguments: list[str]) -> Explained:
    from stoker.bench.run.mlperf.explaining import explain_mlperf
    from stoker.bench.run.mlperf.resolving import Place
    from stoker.cli.mlperf import command_at

    (division, family, model, command_name), context = command_at(arguments)
    given = dict(context.params)
    access, chosen = given.pop("access", None), given.pop("model_name", None)
    place = Place(division, family, model or chosen or "", command_name, access or "")
    return explain_mlperf(place, given, os.environ, key)


def _lines(found: Explained) -> list[str]:
    lines = [f"{found.key} = {_told(found.value)}" + (f"  ({found.help.rstrip('.')})" if found.help else "")]
    width = max(len(each.where) for each in found.candidates)
    for number, each in enumerate(found.candidates):
        mark = "wins" if number == 0 else "over"
        lines.append(f"  {mark}  {each.origin:<8}  {harmless(each.where):<{width}}  {_told(each.value)}".rstrip())
    if found.ways:
        lines.append(f"  set by {', '.join(found.ways)}")
    return lines


def _told(value: Any) -> str:
    if value is None:
        return "not set"
    return harmless(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value))
