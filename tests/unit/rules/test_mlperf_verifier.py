"""Jobs held against the rules before they run: each check is broken by one job, the worst issue is the verdict."""

import msgspec
import pytest

from stoker.bench.rules.mlperf import RULES
from stoker.bench.rules.mlperf.job_checks import CHECKS
from stoker.bench.rules.mlperf.judging import CHECKS as TREE_CHECKS
from stoker.bench.rules.mlperf.verifier import BROKEN, HOLDS, LATER, JobFacts, JobVerdict, judge_job
from stoker.core.units import GiB

PLACES = {"data": "/mnt/data", "results": "/mnt/results", "apart": True}
ROOM = {"needed_bytes": 10.0, "free_bytes": 100, "needed_files": 5, "free_files": 50}
BASES = {
    "training": JobFacts(
        family="training",
        model="unet3d",
        division="closed",
        accelerator="b200",
        processes=8,
        memory_bytes_per_host=512 * GiB,
        files=28_000,
        files_sized=28_000,
        files_made=30_000,
        **PLACES,
        **ROOM,
    ),
    "checkpointing": JobFacts(
        family="checkpointing",
        model="llama3-8b",
        division="closed",
        accelerator="b200",
        processes=8,
        memory_bytes_per_host=256 * GiB,
        **PLACES,
        **ROOM,
    ),
    "vector_database": JobFacts(family="vector_database", model="DISKANN", division="closed", **PLACES, **ROOM),
    "kv_cache": JobFacts(family="kv_cache", model="llama3.1-8b", division="closed", **PLACES, **ROOM),
}
OPEN_SETTING = {"framework": "tensorflow"}
WRONG = [  # base, what is changed, the rules that tell, the verdict
    ("training", {"model": "cosmoflow"}, "2.1.11", "invalid"),
    ("training", {"accelerator": "h100"}, "2.1.11", "invalid"),
    ("training", {"files": 27_999, "files_sized": None}, "3.3.1", "invalid"),
    ("training", {"files": 28_000, "files_sized": 29_000}, "3.3.1", "invalid"),
    ("training", {"files": 31_000}, "3.3.1", "invalid"),
    ("training", {"files_made": 27_000, "files": 27_000, "command": "datagen"}, "3.2.1", "invalid"),
    ("training", {"files": 28_001, "files_made": 27_999}, "3.2.1 3.3.1", "invalid"),
    ("training", {"measured_memory_bytes": 2000.0 * GiB}, "3.3.1", "invalid"),
    ("training", {"processes": 9, "hosts": 2, "files": 99_000, "files_made": 99_000}, "3.3.6", "invalid"),
    ("training", {"slots": (3, 5), "hosts": 2, "files": 99_000, "files_made": 99_000}, "3.3.6", "invalid"),
    ("training", {"results": "/mnt/data/results"}, "3.4.1", "invalid"),
    ("training", {"data": "file:///mnt/results/./data"}, "3.4.1", "invalid"),
    ("training", {"apart": False}, "3.4.2 CAP-03", "invalid"),
    ("training", {"overrides": OPEN_SETTING}, "3.6.2", "open"),
    ("training", {"overrides": {"train.epochs": 1}}, "3.6.2", "invalid"),
    ("training", {"overrides": {"reader.read_thread": 1}, "division": "open"}, "3.6.3", "invalid"),
    ("training", {"free_bytes": 9}, "CAP-01", "invalid"),
    ("training", {"free_files": 4}, "CAP-01", "invalid"),
    ("checkpointing", {"model": "llama2-7b"}, "2.1.21", "invalid"),
    ("checkpointing", {"overrides": {"checkpoint.fsync": "false"}}, "4.3.2 4.6.3", "invalid"),
    ("checkpointing", {"accelerator": "h100", "model": "llama3-70b", "processes": 8}, "4.3.4 4.6.1", "invalid"),
    ("checkpointing", {"model": "llama3-70b", "subset": True}, "4.3.5 4.6.1", "invalid"),
    ("checkpointing", {"results": "/mnt/data"}, "4.4.1", "invalid"),
    ("checkpointing", {"apart": False}, "4.4.2 CAP-03", "invalid"),
    ("checkpointing", {"processes": 16}, "4.6.1", "open"),
    ("checkpointing", {"processes": 12}, "4.6.1", "invalid"),
    ("checkpointing", {"processes": 12, "division": "open"}, "4.6.4", "invalid"),
    ("checkpointing", {"hosts": 4}, "4.6.2", "open"),
    ("checkpointing", {"overrides": {"checkpoint.num_checkpoints_write": 3}}, "4.6.3", "open"),
    ("vector_database", {"model": "IVF_FLAT"}, "5.6.3", "open"),
    ("vector_database", {"engine": "pgvector"}, "5.6.2", "open"),
    ("vector_database", {"overrides": {"index.index_type": "IVF_FLAT"}}, "5.6.4", "open"),
    ("vector_database", {"overrides": {"index.nonsense": 1}, "division": "open"}, "5.6.5", "invalid"),
    ("vector_database", {"results": "/mnt/data"}, "5.4.1", "invalid"),
    ("kv_cache", {"overrides": {"seed": 43}}, "6.3.2.1 6.6.1", "open"),
    ("kv_cache", {"overrides": {"config": "my.yaml"}}, "6.3.2.1 6.6.1", "open"),
    ("kv_cache", {"overrides": {"enable_autoscaling": True}}, "6.3.2.2 6.6.1", "open"),
    ("kv_cache", {"processes": 3, "hosts": 2}, "6.3.3.1", "invalid"),
    ("kv_cache", {"overrides": {"nonsense": 1}, "division": "open"}, "6.6.2", "invalid"),
]


def verdict(base: str, **changes) -> JobVerdict:
    return judge_job(msgspec.structs.replace(BASES[base], **changes))


def broken(told: JobVerdict) -> set[str]:
    return {issue.rule for issue in told.issues if issue.severity == "error"}


@pytest.mark.parametrize("base", BASES)
def test_a_good_job_is_closed(base: str) -> None:
    told = verdict(base)
    assert told.issues == ()
    assert told.validation == "closed"
    assert told.refusal() == ""
    assert told.label.startswith("submittable in closed")
    assert told.of(HOLDS) and told.of(LATER) and not told.of(BROKEN)


@pytest.mark.parametrize(("base", "changes", "rules", "validation"), WRONG)
def test_each_breach_is_told_by_its_rules(base: str, changes: dict, rules: str, validation: str) -> None:
    told = verdict(base, **changes)
    assert broken(told) == set(rules.split())
    assert {each.rule for each in told.of(BROKEN)} == set(rules.split())
    assert told.validation == validation
    for issue in told.issues:
        assert issue.parameter and issue.expected and issue.actual
        assert issue.rule in issue.sentence and issue.rule in issue.message
    assert bool(told.refusal()) is (validation == "invalid" or told.division == "closed")


def test_every_check_before_a_run_is_broken_by_a_job_and_held_by_another() -> None:
    told = {rule for _, _, rules, _ in WRONG for rule in rules.split()}
    held = {each.rule for base in BASES for each in verdict(base).of(HOLDS)}
    held |= {each.rule for base in BASES for each in verdict(base, division="open").of(HOLDS)}
    only_warned = {"4.3.1"}
    never_broken = {"CAP-02"}
    assert told == set(CHECKS) - only_warned - never_broken
    assert set(CHECKS) <= held
    assert set(CHECKS) <= set(TREE_CHECKS)


def test_what_is_only_warned_of_stops_nothing() -> None:
    told = verdict("checkpointing", memory_bytes_per_host=512 * GiB)
    assert [(issue.rule, issue.severity, issue.validation) for issue in told.issues] == [("4.3.1", "warning", "closed")]
    assert told.validation == "closed"
    assert told.refusal() == ""
    four = verdict("checkpointing", hosts=2, memory_bytes_per_host=64 * GiB)
    assert [(issue.rule, issue.severity) for issue in four.issues] == [("4.6.2", "warning")]


def test_invalid_jobs_start_only_where_that_is_allowed() -> None:
    told = verdict("training", files=5, division="open", files_sized=None)
    assert "3.3.1" in told.refusal()
    assert told.refusal(allow_invalid=True) == ""
    closed = verdict("training", files=5, overrides=OPEN_SETTING, files_sized=None)
    assert "3.6.2" in closed.refusal(allow_invalid=True)
    assert "3.3.1" not in closed.refusal(allow_invalid=True)


def test_what_is_not_known_cannot_be_told() -> None:
    job = JobFacts(family="training", model="unet3d", accelerator="b200", hosts=2, processes=8)
    told = judge_job(job)
    later = {each.rule: each.reason for each in told.of(LATER)}
    assert {"3.3.1", "3.4.1", "3.4.2", "CAP-01", "CAP-02", "CAP-03", "3.3.2"} <= set(later)
    assert later["3.3.2"] == "takes what the run leaves behind"
    assert later["3.3.3"] == RULES["3.3.3"].undecidable
    assert told.label == "not submittable: no division was named"
    assert told.refusal() == ""


def test_a_whatif_takes_more_models_and_is_never_submittable() -> None:
    told = verdict("training", division="whatif", model="cosmoflow", accelerator="h100", files=10**7, files_made=10**7)
    assert told.validation == "closed"
    assert told.label == "not submittable: a what-if"


def test_object_stores_have_no_file_system_to_hold_apart() -> None:
    told = verdict("training", data="s3://bucket/data", apart=None, free_bytes=None)
    assert {"3.4.2", "CAP-01", "CAP-02", "CAP-03", "3.4.1"} <= {each.rule for each in told.of(HOLDS)}
