"""The report of a run as one HTML file that needs nothing else: no network, no other file, under 2 MiB."""

import base64
import hashlib
import math
import re
from pathlib import Path
from typing import Any, Final

import jinja2
import msgspec
import numpy as np

from stoker.bench.report.hosts import HostsLine, load_line
from stoker.bench.report.latency import latencies
from stoker.bench.report.page import Saved, build
from stoker.bench.report.series import Band, Floats, Timeline, load_timeline
from stoker.bench.report.text import plain, redacted
from stoker.bench.rules import judge
from stoker.core.errors import CorruptError, StokerError
from stoker.core.files import redact_arguments, write_atomic
from stoker.core.result import SERIES_FILE, Result, load_result

REPORT_FILE: Final = "report.html"
REPORT_SCHEMA: Final = "stoker-report/1"
REPORT_BYTES_MAX: Final = 2 << 20
DATA_BYTES_MAX: Final = 640 << 10
# What could end the script element, and what could make its text read other than it is.
_UNSAFE_IN_SCRIPT: Final = re.compile("[<>&\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_DROPPED_FIRST: Final = (
    "ranks",
    "histograms",
    "hosts",
    "machine",
    "notes",
    "epochs",
    "job",
    "metrics",
    "plan",
    "evidence",
)


def write_report(folder: Path, out: Path | None = None, *, result: Result | None = None) -> Path:
    """Write the report of the run in `folder` to `out` (`report.html` in the folder when not given), return its path.

    The result is the folder's `result.json` unless another is given, such as one recovered from logs. Series that
    are missing or unreadable are left out, and the page says so. Raises CorruptError for an unreadable result.
    """
    path = folder / REPORT_FILE if out is None else out
    page = render(read_saved(folder, result)).encode()
    if len(page) >= REPORT_BYTES_MAX:
        raise StokerError("report is too large", where=str(path), expected="under 2 MiB", got=f"{len(page)} bytes")
    write_atomic(path, page)
    return path


def read_saved(folder: Path, result: Result | None = None) -> Saved:
    """Return what the run folder holds, judged, with the troubles met on the way."""
    result = load_result(folder) if result is None else result
    verdict = judge(result)
    troubles = []
    timeline = None
    try:
        timeline = load_timeline(folder / SERIES_FILE, barrier=result.plan.barrier)
    except (CorruptError, OSError) as error:
        troubles.append(f"The series of steps could not be read, so there are no curves over time: {error}")
    hosts = None
    try:
        hosts = load_line(folder, origin_ns=timeline.origin_ns if timeline is not None else 0)
    except (CorruptError, OSError) as error:
        troubles.append(f"The series of hosts could not be read, so there are no curves of them: {error}")
    stages, unreadable = latencies(result.histograms)
    if unreadable:
        names = ", ".join(plain(name, 40) for name in unreadable[:10])
        troubles.append(f"The latency histograms of {names} could not be read.")
    return Saved(result, verdict, timeline, stages, troubles, hosts)


def render(saved: Saved) -> str:
    """Return the page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stoker.bench.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html.j2").render(
        **build(saved), script_hash=_script_hash(script), data=embedded_json(saved)
    )


def _script_hash(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def embedded_json(saved: Saved) -> str:
    """Return the machine-readable copy: JSON that is safe inside a script element, at most 640 KiB.

    What makes it too large is left out and named in `omitted`: histograms of single ranks always, then the ranks,
    the machine, the epochs, the settings.
    """
    document: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "omitted": ["result.ranks.histograms"],
        "verdict": msgspec.to_builtins(saved.verdict),
        "timeline": _timeline(saved.timeline),
        "hosts": _hosts(saved.hosts),
        "latency_seconds": {
            plain(stage.name, 40): {"count": stage.count, **{f"p{q * 100:g}": v for q, v in stage.seconds.items()}}
            for stage in saved.stages
        },
        "result": _result(saved.result),
    }
    for name in _DROPPED_FIRST:
        if len(msgspec.json.encode(document)) <= DATA_BYTES_MAX:
            break
        del document["result"][name]
        document["omitted"].append(f"result.{name}")
    text = _script_safe(document)
    return text if len(text) <= DATA_BYTES_MAX else _script_safe({"schema": REPORT_SCHEMA, "omitted": ["everything"]})


def _script_safe(document: dict[str, Any]) -> str:
    text = msgspec.json.encode(document).decode()
    return _UNSAFE_IN_SCRIPT.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _result(result: Result) -> dict[str, Any]:
    """Return the result as plain data, without histograms of single ranks and without anything secret by name."""
    document: dict[str, Any] = msgspec.to_builtins(result)
    for rank in document["ranks"]:
        del rank["histograms"]
        for trial in rank["trials"]:
            del trial["histograms"], trial["samples"]
    job = document["job"]
    job["arguments"] = redact_arguments(job["arguments"])
    for name, setting in job["settings"].items():
        setting["value"] = redacted(name, setting["value"])
    document["plan"]["target_url"] = redacted("target_url", document["plan"]["target_url"])
    return document


def _timeline(line: Timeline | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {
        "seconds": _numbers(line.seconds),
        "au": _band(line.au),
        "wait_seconds": _band(line.wait),
        "compute_seconds": _band(line.compute),
        "delivered_bytes_per_second": _numbers(line.bytes_per_second),
        "epochs": [{"seconds": at, "label": label} for at, label in line.epochs],
        "ranks": line.ranks,
        "steps": line.steps,
    }


def _hosts(line: HostsLine | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {
        "seconds": _numbers(line.seconds),
        "cpu_busy_ratio": _band(line.cpu),
        **{f"{name}_bytes_per_second": _numbers(values) for name, values in line.rates.items()},
        "hosts": line.hosts,
        "samples": line.samples,
    }


def _band(band: Band) -> dict[str, list[float | None]]:
    return {"mean": _numbers(band.mean), "low": _numbers(band.low), "high": _numbers(band.high)}


def _numbers(values: Floats) -> list[float | None]:
    """Return the values with six significant digits, None for what is no number."""
    return [float(f"{v:.6g}") if math.isfinite(v) else None for v in np.asarray(values).tolist()]
