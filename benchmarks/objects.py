"""What does a client of an object store cost? Ours beside obstore's asyncio loop, boto3 and s3dlio, over SeaweedFS.

The server runs on the same CPUs as the clients: rates tell of both, CPU seconds of the client alone. Every turn is a
fresh process, clients take turns, the first round is not counted, and figures are medians of the others.
"""

import argparse
import os
import shlex
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import obstore
from obstore.store import S3Store

from benchmarks.harness import Contender, Round, Turn, race, save
from benchmarks.peers import run_turn, turn_of
from benchmarks.weed import running_weed
from stoker.core.units import GiB, KiB, MiB

BUCKET = "stoker-bench"
WORK: dict[str, dict[str, Any]] = {
    "GET 1 MiB": {"work": "get", "prefix": "large", "count": 400, "size_bytes": MiB},
    "GET 64 KiB": {"work": "get", "prefix": "small", "count": 2000, "size_bytes": 64 * KiB},
    "GET ranges of 4 KiB": {"work": "ranges", "prefix": "large", "count": 4000, "size_bytes": 4 * KiB},
    "PUT 1 MiB": {"work": "put", "prefix": "", "count": 100, "size_bytes": MiB},
    "LIST 2,000 keys": {"work": "list", "prefix": "small", "count": 2000, "size_bytes": 0, "times": 3},
}


def prepare(variables: dict[str, str]) -> None:
    """Put the objects that are read, with the client below ours: the benchmark must not warm what it measures."""
    client = S3Store(
        BUCKET,
        endpoint=variables["AWS_ENDPOINT_URL"],
        access_key_id=variables["AWS_ACCESS_KEY_ID"],
        secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region=variables["AWS_REGION"],
        client_options={"allow_http": True},
    )
    data = np.random.default_rng(3).bytes(MiB)
    for prefix, count, size_bytes in (("large", 400, MiB), ("small", 2000, 64 * KiB)):
        for number in range(count):
            obstore.put(client, f"{prefix}/{number}", data[:size_bytes], use_multipart=False)


def contenders(asked: dict[str, Any], pythons: dict[str, str], variables: dict[str, str]) -> list[Contender]:
    """Return those that do one piece of work."""

    def turn(client: str) -> Turn:
        return turn_of(run_turn(pythons[client], "object_store", {**asked, "client": client}, **variables))

    words = {"stoker": "stoker, batches, 1 thread", "obstore": "obstore, asyncio", "boto3": "boto3, threads"}
    return [Contender(words.get(client, client), lambda client=client: turn(client)) for client in pythons]


def table(title: str, racers: list[Contender]) -> str:
    """Return a Markdown table of medians."""
    lines = [f"### {title}", "", "| client | MB/s | op/s | slowest … fastest op/s | CPU s/GiB | CPU µs/op |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [_row(racer) for racer in racers if racer.rounds]
    lines += [f"\n{racer.name}: {racer.failed}" for racer in racers if racer.failed]
    return "\n".join(lines) + "\n"


def _row(racer: Contender) -> str:
    def median(measure: Any) -> float:
        return statistics.median(map(measure, racer.rounds))

    def rate(entry: Round) -> float:
        return entry.samples / entry.wall_seconds

    rates = sorted(map(rate, racer.rounds))
    megabytes = median(lambda entry: entry.payload_bytes / entry.wall_seconds / 1e6)
    per_gib = median(lambda entry: entry.cpu_seconds / (entry.payload_bytes / GiB))
    per_operation = median(lambda entry: entry.cpu_seconds / entry.samples * 1e6)
    return (
        f"| {racer.name} | {megabytes:,.1f} | {median(rate):,.0f} | {rates[0]:,.0f} … {rates[-1]:,.0f} "
        f"| {per_gib:.2f} | {per_operation:,.0f} |"
    )


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objects", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=16, help="requests under way, for every client")
    parser.add_argument("--only", default="", help="words that the names of the work must hold one of, with commas")
    parser.add_argument("--boto3-python", help="a Python that has boto3")
    parser.add_argument("--s3dlio-python", help="a Python that has s3dlio")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path, help="folder for objects.json and objects.md")
    return parser.parse_args()


def main() -> None:
    """Run the races and print the tables."""
    options = parsed()
    pythons = {"stoker": sys.executable, "obstore": sys.executable}
    pythons |= {"boto3": options.boto3_python} if options.boto3_python else {}
    pythons |= {"s3dlio": options.s3dlio_python} if options.s3dlio_python else {}
    tables: dict[str, list[Contender]] = {}
    text = f"Server and clients share {len(os.sched_getaffinity(0))} CPUs; {options.in_flight} requests under way.\n\n"
    with running_weed(options.scratch) as variables:
        prepare(variables)
        for title, work in WORK.items():
            if not any(word in title for word in options.only.split(",")):
                continue
            racers = contenders({**work, "in_flight": options.in_flight}, pythons, variables)
            race(racers, options.rounds)
            tables[title] = racers
            text += table(title, racers) + "\n"
            print(table(title, racers), flush=True)
    print(text.partition("\n")[0])
    if options.out:
        said = [word for word in sys.argv[1:] if "python=" not in word]
        save(options.out, "objects", shlex.join(["python", "-m", "benchmarks.objects", *said]), tables, text)


if __name__ == "__main__":
    main()
