"""A saved result of ours, held against a division."""

from typing import Any

import msgspec
import pytest
from good_results import good_result

from stoker.bench.rules.mlperf import judge_result
from stoker.bench.rules.mlperf.result_checks import PREFETCH_MAX
from stoker.bench.workloads.catalogue.entries import entry
from stoker.core.plan import Spread
from stoker.core.result import RankResult, Result
from stoker.core.units import GiB

FILES = 28_000


def submitted(**changes: Any) -> Result:
    """A full run of unet3d on eight b200 by the template; `changes` go to the plan."""
    template = entry("unet3d", "b200")
    result = good_result()
    plan = msgspec.structs.replace(
        result.plan,
        model="unet3d",
        accelerator="b200",
        ranks=8,
        batch_size=template.batch_size,
        computation=Spread("constant", {"value": template.computation_seconds}),
        epochs=template.epochs,
        dataset=template.dataset(files=FILES),
        au_threshold_ratio=0.9,
    )
    result.plan = msgspec.structs.replace(plan, **changes)
    result.ranks = [RankResult(rank=rank, host="a") for rank in range(8)]
    result.machine = {"memory_bytes": 256 * GiB}
    result.metrics.samples_per_second = 330.0
    return result


def found(result: Result, division: str = "closed", edition: str = "3.0") -> set[str]:
    return {finding.rule for finding in judge_result(result, edition=edition, division=division).findings}


def test_a_run_by_the_template_is_valid() -> None:
    for division in ("closed", "open"):
        judgement = judge_result(submitted(), edition="3.0", division=division)
        assert (judgement.answer, judgement.findings, judgement.exit_code) == ("valid", (), 0)
        undecided = {outcome.rule for outcome in judgement.rules if outcome.state == "undecided"}
        assert "2.1.17" in undecided  # six runs take a tree


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"model": "resnet50"}, {"2.1.11", "3.6.2"}),
        ({"accelerator": "h100"}, {"2.1.11", "3.6.2", "SANE-01"}),
        ({"accelerator": ""}, {"2.1.11"}),
        ({"batch_size": 1}, {"3.6.2"}),
        ({"epochs": 1}, {"3.6.2"}),
        ({"prefetch_batches": PREFETCH_MAX + 1}, {"3.6.2"}),
        ({"duration_seconds": 60.0}, {"3.6.2"}),
        ({"steps_max": 10}, {"3.6.2"}),
        ({"order": "sequential"}, {"3.6.2"}),
        ({"computation": Spread("constant", {"value": 0.3})}, {"3.6.2"}),
        ({"dataset": entry("unet3d", "b200").dataset(files=FILES - 1)}, {"3.3.1"}),
    ],
)
def test_breach(changes: dict[str, Any], rules: set[str]) -> None:
    assert found(submitted(**changes)) == rules


def test_open_allows_another_format() -> None:
    dataset = msgspec.structs.replace(entry("unet3d", "b200").dataset(files=FILES), format="tfrecord")
    assert found(submitted(dataset=dataset)) == {"3.6.2"}
    assert found(submitted(dataset=dataset), "open") == set()


def test_figures_of_the_run() -> None:
    slow, partial, fast, uneven = submitted(), submitted(), submitted(), submitted()
    slow.metrics.au_ratio = 0.89
    partial.status = "partial"
    fast.metrics.samples_per_second = 400.0
    uneven.ranks[7].host = "b"
    told = [found(each) for each in (slow, partial, fast, uneven)]
    assert told == [{"3.3.2"}, {"META-02"}, {"SANE-01"}, {"3.3.6"}]


def test_memory_that_is_not_told_is_not_a_pass() -> None:
    result = submitted()
    result.machine = {}
    judgement = judge_result(result, edition="3.0", division="closed")
    assert (judgement.answer, judgement.exit_code) == ("not_proven", 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_that_are_no_numbers_never_pass(value: float) -> None:
    result = submitted()
    result.metrics.au_ratio = value
    result.metrics.samples_per_second = value
    assert "SANE-01" in found(result)
    assert judge_result(result, edition="3.0", division="closed").answer == "invalid"
