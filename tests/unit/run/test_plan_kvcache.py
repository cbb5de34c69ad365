"""From the settings of `run kvcache` to its plan: what is decided, and what is refused since it has no effect."""

import re
from pathlib import Path
from typing import Any

import pytest

from stoker.bench.run.kvcache import check_kv, kv_url, plan_kvcache
from stoker.bench.run.options import KVCACHE
from stoker.core.errors import StokerError, UnknownNameError, UsageError
from stoker.core.kvcache import KvPlan
from stoker.core.options import resolve
from stoker.core.units import GiB


def planned(folder: Path, **flags: Any) -> KvPlan:
    plan = plan_kvcache(resolve(KVCACHE, flags={"model": "tiny-1b", **flags}, environment={}), str(folder / "cache"))
    check_kv(plan)
    assert plan.kvcache is not None
    return plan.kvcache


def test_options_become_the_plan(tmp_path: Path) -> None:
    what = planned(
        tmp_path,
        num_users=7,
        duration="3s",
        cpu_mem_gb=0.5,
        generation_mode="fast",
        disable_multi_turn=True,
        enable_rag=True,
        rag_num_docs=3,
        precondition=True,
        storage_capacity_gb=2,
    )
    assert (what.users, what.duration_seconds, what.cpu_bytes, what.token_seconds) == (7, 3.0, GiB // 2, 0.002)
    assert (what.multi_turn, what.rag_documents, what.precondition_bytes) == (False, 3, 4 * GiB)
    assert what.prefill_tokens_per_second == pytest.approx(400e12 / 2e9) and not what.prefill_required
    assert planned(tmp_path, prefill_rate=1000).break_even_bytes_per_second == 24_576_000
    assert planned(tmp_path, prefill_rate=1000).prefill_required


def test_the_first_tier_is_left_out_and_told(tmp_path: Path) -> None:
    flags = {"model": "tiny-1b", "gpu_mem_gb": 16}
    plan = plan_kvcache(resolve(KVCACHE, flags=flags, environment={}), str(tmp_path / "cache"))
    assert any("GPU memory is left out (16 GB asked for)" in told for told in plan.deviations)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"model": "tiny-1c"}, "did you mean 'tiny-1b'?"),
        ({"model": None}, "--model is missing"),
        ({"rag_num_docs": 3}, "it needs --enable-rag"),
        ({"autoscaler_mode": "capacity"}, "it needs --enable-autoscaling"),
        (
            {"enable_autoscaling": True, "autoscaler_mode": "capacity", "target_saturation": 0.5},
            "--autoscaler-mode qos",
        ),
        ({"prefill_only": True, "decode_only": True}, "--prefill-only and --decode-only"),
        ({"burst_trace_path": "x.csv"}, "add --use-burst-trace"),
        ({"use_burst_trace": True}, "--use-burst-trace without a trace"),
        ({"dataset_path": "a", "mooncake_trace": "b"}, "several sources of traffic"),
        ({"precondition": True}, "--precondition without a size"),
        ({"pause": 1}, "it needs --trials of 2 or more"),
        ({"page_tokens": 64}, "it needs --layout block"),
        ({"trace_speedup": 2}, "it needs a trace with times"),
        ({"mooncake_trace": "t.jsonl"}, "mooncake with --layout block"),
        ({"layout": "block", "decode_only": True}, "pages are read once"),
        ({"tensor_parallel": 5}, "a divisor of the 24,576 bytes"),
        ({"piece_bytes": "5000"}, "a multiple of 4 KiB"),
        ({"dataset_path": "missing.json"}, "no trace"),
    ],
)
def test_what_contradicts_itself_or_has_no_effect_is_refused(flags: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(StokerError, match=re.escape(told)):
        planned(tmp_path, **flags)


def test_no_file_of_the_system_is_written_over(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder of the system"):
        plan_kvcache(resolve(KVCACHE, flags={"model": "tiny-1b"}, environment={}), "/usr/../etc")
    with pytest.raises(UnknownNameError):
        planned(tmp_path, model="gpt-9")


def test_puts_of_a_folder_do_not_sync_since_that_is_timed_apart() -> None:
    assert kv_url("/data/cache") == "file:///data/cache?fsync=none"
    assert kv_url("direct:///data/cache") == "direct:///data/cache?fsync=none"
    assert kv_url("s3://bucket/cache") == "s3://bucket/cache"
    with pytest.raises(UsageError, match="told by --fsync here"):
        kv_url("file:///data/cache?fsync=full")
