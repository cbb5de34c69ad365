"""One file, complete, safe and bounded, whatever was saved."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
import runs
from hostile import CANARY, hostile_result

from stoker.bench.report.html import DATA_BYTES_MAX, REPORT_BYTES_MAX, write_report
from stoker.bench.rules import judge
from stoker.core.errors import CorruptError, StokerError
from stoker.core.ledger import Counters, Ledger
from stoker.core.options import Setting
from stoker.core.result import Epoch, Evidence, Metrics, RankResult, Result, save_result

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Reads a page: which elements and attributes it has, and whether they close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[int] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def data_of(text: str) -> dict:
    found = re.search(r'<script type="application/json" id="stoker-data">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_page_is_one_file_without_outside_references(run_folder: Path) -> None:
    text = text_of(write_report(run_folder))
    page = Page(text)
    assert page.open == []
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "img", "video", "audio")
        assert "src" not in attributes
        for name in ("href", "xlink:href", "action"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(|https?://", text)


def test_policy_allows_no_network_and_only_the_page_own_script(run_folder: Path) -> None:
    text = text_of(write_report(run_folder))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1].replace("&#39;", "'").replace("&#43;", "+")


def test_first_screen_says_verdict_figures_and_what_was_asked(run_folder: Path) -> None:
    text = text_of(write_report(run_folder))
    first = text[text.index("<main>") : text.index("<nav")]
    for words in ("YES", "95.32 %", "94.47 %", "96.08 %", "2.75 GiB/s", "read", "unet3d", "h100", "nfs4"):
        assert words in first
    assert "quick look, not a submission" in first


def test_page_is_accessible(run_folder: Path) -> None:
    text = text_of(write_report(run_folder))
    page = Page(text)
    assert '<html lang="en">' in text
    assert page.headings.count(1) == 1 and page.headings[0] == 1
    assert all(later <= earlier + 1 for earlier, later in zip(page.headings, page.headings[1:], strict=False))
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("aria-labelledby")
        if tag == "th":
            assert attributes.get("scope")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'href="#([^"]+)"', text):
        assert reference in ids


def test_settings_machine_commands_and_glossary_are_told(run_folder: Path) -> None:
    text = text_of(write_report(run_folder))
    for words in (
        "stoker feed /mnt/train --model unet3d --accelerator h100:4 --budget 60s",
        "add --seed 20260131",
        "AMD EPYC 9354",
        "nconnect=8",
        'class="origin flag"',
        "Σ compute ÷",
        "h100 is a what-if accelerator",
    ):
        assert words in text


def test_machine_readable_copy_equals_the_result(run_folder: Path, template_result: Result) -> None:
    data = data_of(text_of(write_report(run_folder)))
    assert data["schema"] == "stoker-report/1"
    assert data["verdict"]["answer"] == judge(template_result).answer
    assert data["result"]["metrics"] == msgspec.to_builtins(template_result.metrics)
    assert len(data["timeline"]["seconds"]) == len(data["timeline"]["au"]["mean"])
    assert data["latency_seconds"]["read"]["count"] == 8004
    assert data["omitted"] == ["result.ranks.histograms"]


@pytest.mark.parametrize("answer", ["no", "not_proven", "client_limited", "invalid", "partial"])
def test_every_answer_has_its_page(tmp_path: Path, answer: str) -> None:
    result = runs.realistic_result(with_histograms=False)
    if answer in ("no", "client_limited"):
        result.metrics.au_ratio, result.metrics.au_low_ratio, result.metrics.au_high_ratio = 0.6, 0.58, 0.62
    result.metrics.client_cpu_ratio = 0.97 if answer == "client_limited" else 0.2
    result.status = {"invalid": "failed", "partial": "partial"}.get(answer, "complete")
    if answer == "not_proven":
        result.evidence.counters.process_read_bytes = None
    text = text_of(write_report(runs.save_run(tmp_path, result)))
    assert f'class="verdict {answer}"' in text
    assert answer.replace("_", " ").upper() in text


def test_result_given_wins_over_the_one_in_the_folder(tmp_path: Path, template_result: Result) -> None:
    out = tmp_path / "elsewhere.html"
    empty = tmp_path / "run"
    empty.mkdir()
    assert write_report(empty, out, result=template_result) == out
    assert "YES" in text_of(out)


def test_bare_partial_result_has_a_page(tmp_path: Path) -> None:
    plan = runs.plan()
    save_result(tmp_path, Result(id="x", job=msgspec.convert({"verb": "run training"}, runs.Job), plan=plan))
    text = text_of(write_report(tmp_path))
    assert "PARTIAL" in text and "No series of steps" in text and "No rank reported" in text
    assert "No step was measured" in text and "0.00 %" not in text[: text.index("<nav")]
    assert Page(text).open == []


def test_missing_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((CorruptError, FileNotFoundError)):
        write_report(tmp_path)


def test_damaged_series_and_histograms_are_told_and_left_out(tmp_path: Path, template_result: Result) -> None:
    result = msgspec.structs.replace(template_result, histograms={"read": "HISTFAAA", "open": "%%%", "list": ""})
    save_result(tmp_path, result)
    (tmp_path / "series.npz").write_bytes(b"PK\x03\x04 not a zip")
    text = text_of(write_report(tmp_path))
    assert "The series of steps could not be read" in text
    assert "The latency histograms of open, read could not be read" in text


def test_hostile_texts_are_escaped_everywhere(tmp_path: Path) -> None:
    text = text_of(write_report(runs.save_run(tmp_path, hostile_result())))
    page = Page(text)
    assert page.open == []
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "stoker-data"}, {}]
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(text_of(_clean_page(tmp_path))).tags} | {"circle"}
    assert CANARY in text
    for control in "\x00\x1b\x9b\x07\u202e\u2028":
        assert control not in text
    assert data_of(text)["result"]["notes"] == hostile_result().notes


def _clean_page(folder: Path) -> Path:
    clean = folder / "clean"
    clean.mkdir()
    failed = runs.realistic_result()
    failed.ranks[0].error = "failed"
    return write_report(runs.save_run(clean, failed))


def test_secrets_by_name_are_hidden(tmp_path: Path, template_result: Result) -> None:
    settings = {
        "secret_key": Setting("canary-one", "env"),
        "endpoint": Setting("https://user:canary-two@host/x?sig=canary-three", "flag"),
    }
    job = msgspec.structs.replace(template_result.job, settings=settings, arguments=("feed", "access_key=canary-four"))
    save_result(tmp_path, msgspec.structs.replace(template_result, job=job))
    text = text_of(write_report(tmp_path))
    assert "canary" not in text and "[redacted]" in text


def large_result(ranks: int, epochs: int) -> Result:
    result = runs.realistic_result(with_histograms=False)
    histograms = runs.histograms(3, samples=500)
    result.ranks = [
        RankResult(rank=n, host=f"node-{n // 8:03d}", histograms=histograms, stall_seconds={"read": float(n)})
        for n in range(ranks)
    ]
    result.plan = runs.plan(ranks=ranks)
    result.epochs = [Epoch(epoch=n, steps=10, au_ratio=0.9, order_digest="f" * 32) for n in range(1, epochs + 1)]
    result.machine = {f"host{n}": {"name": "x" * 300, "kernel": "<" * 300} for n in range(300)}
    result.notes = ["&" * 5000] * 500
    return result


def test_large_run_stays_under_two_mebibytes(tmp_path: Path) -> None:
    save_result(tmp_path, large_result(ranks=800, epochs=3000))
    text = text_of(write_report(tmp_path))
    assert len(text.encode()) < REPORT_BYTES_MAX
    data = data_of(text)
    assert "result.ranks" in data["omitted"]
    assert "752 others left out" in text and "2880 further epochs" in text


def test_long_series_stay_small(tmp_path: Path, template_result: Result) -> None:
    save_result(tmp_path, template_result)
    runs.save_series(tmp_path / "series.npz", {0: runs.rank_columns(0, steps=200_000)})
    path = write_report(tmp_path)
    assert path.stat().st_size < 300_000
    assert len(data_of(text_of(path))["timeline"]["seconds"]) <= 240


def test_worst_texts_stay_under_two_mebibytes(tmp_path: Path) -> None:
    result = hostile_result()
    quote = "\"'<>&" * 400
    result.machine = {f"{quote}{n}": quote for n in range(1000)}
    result.job = msgspec.structs.replace(
        result.job,
        arguments=(quote,) * 500,
        settings={f"{quote}{n}": Setting(quote, quote) for n in range(500)},
    )
    result.notes = [f"{quote}{n}" for n in range(300)]
    result.metrics.stall_seconds = {f"{quote}{n}": 1.0 for n in range(300)}
    result.ranks = [RankResult(rank=n, host=quote, error=quote) for n in range(200)]
    save_result(tmp_path, result)
    text = text_of(write_report(tmp_path))
    assert len(text.encode()) < REPORT_BYTES_MAX
    assert len(json.dumps(data_of(text))) < DATA_BYTES_MAX


def test_report_over_the_limit_is_refused(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.bench.report.html.REPORT_BYTES_MAX", 1000)
    with pytest.raises(StokerError, match="under 2 MiB"):
        write_report(run_folder)
    assert not (run_folder / "report.html").exists()


def test_figures_that_are_no_numbers_are_dashes(tmp_path: Path, template_result: Result) -> None:
    nothing = float("nan")
    metrics = Metrics(au_ratio=nothing, au_low_ratio=nothing, delivered_bytes_per_second=float("inf"))
    result = msgspec.structs.replace(
        template_result,
        metrics=metrics,
        evidence=Evidence(ledger=Ledger(), counters=Counters()),
    )
    text = text_of(write_report(tmp_path, result=result))
    assert "INVALID" in text
    visible = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(r">\s*-?(nan|inf)\b", visible)


def test_report_is_the_same_twice(run_folder: Path) -> None:
    first = write_report(run_folder).read_bytes()
    assert write_report(run_folder).read_bytes() == first


def test_timeline_has_no_nan_in_json(run_folder: Path) -> None:
    timeline = data_of(text_of(write_report(run_folder)))["timeline"]
    values = [value for value in timeline["au"]["mean"] if value is not None]
    assert values and None in timeline["au"]["mean"]
    assert np.isfinite(values).all()
