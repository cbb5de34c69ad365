"""`python -m benchmarks`: measure our own code beside its ceiling and what a user would pick, and write the table."""

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path

from benchmarks.conditions import Conditions
from benchmarks.goals import goals_markdown
from benchmarks.peers import HOMES, find_peers
from benchmarks.table import NAME, ROWS, kept_rows, new_document, run_row, write

ROUNDS = {"quick": 3, "default": 5, "full": 7}


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    scale = parser.add_mutually_exclusive_group()
    scale.add_argument("--quick", action="store_const", dest="scale", const="quick", help="smaller work, 3 rounds")
    scale.add_argument("--full", action="store_const", dest="scale", const="full", help="all cases, 100,000 files")
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows to run, of {','.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each contest, instead of the scale's")
    parser.add_argument("--workers", type=int, default=2, help="workers of every loader")
    parser.add_argument("--files", type=int, default=0, help="small files in row c, instead of the scale's")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder for the data")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--keep-rows", action="store_true", help="keep the rows of an earlier table that are not run")
    for name in HOMES:
        parser.add_argument(f"--{name}-python", help=f"a Python that has {name}; .tools/peers by default")
    parser.set_defaults(scale="default")
    options = parser.parse_args(words)
    unknown = set(options.only.split(",")) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    return options


def command_of(options: argparse.Namespace) -> str:
    """Return the command that repeats this, without the places that differ between machines."""
    words = ["python", "-m", "benchmarks"]
    words += [] if options.scale == "default" else [f"--{options.scale}"]
    for name, usual in (("only", ",".join(ROWS)), ("rounds", 0), ("workers", 2), ("files", 0)):
        value = getattr(options, name)
        words += [] if value == usual else [f"--{name}", str(value)]
    return shlex.join(words)


def main(words: list[str] | None = None) -> None:
    """Run the rows asked for."""
    options = parsed(words)
    peers = find_peers({name: getattr(options, f"{name}_python") for name in HOMES})
    conditions = Conditions(
        scratch=options.scratch,
        peers=peers,
        scale=options.scale,
        rounds=options.rounds or ROUNDS[options.scale],
        workers=options.workers,
        files=options.files,
    )
    for sentence in peers.missing.values():
        print(sentence, file=sys.stderr)
    document = new_document(conditions, command_of(options))
    before = options.out / f"{NAME}.json"
    if options.keep_rows and before.is_file():
        document["rows"] = kept_rows(json.loads(before.read_text()))
    for letter in options.only.split(","):
        print(f"{letter}. {ROWS[letter].title} …", file=sys.stderr, flush=True)
        document["rows"][letter] = run_row(letter, conditions, document["command"])
        document["rows"] = dict(sorted(document["rows"].items()))
        write(document, options.out)
    print(goals_markdown(document))
    print(f"{options.out / NAME}.md")


if __name__ == "__main__":
    main()
