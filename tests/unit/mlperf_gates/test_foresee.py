"""What a run of every family will take and what the rules will say, before anything is written."""

import os
from pathlib import Path

import pytest

from stoker.bench.rules.mlperf.verifier import BROKEN, HOLDS, LATER, JobFacts
from stoker.bench.run.foresee import ForeseeRequest, Foresight, family_of, foresee
from stoker.bench.run.surroundings import line_rate, look_around
from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.units import GiB


def foreseen(family: str, model: str, **job) -> Foresight:
    more = {name: job.pop(name) for name in ("vectors", "users", "write_bytes_per_second") if name in job}
    facts = JobFacts(family=family, model=model, **job)
    return foresee(ForeseeRequest(job=facts, line_rate_bytes_per_second=12.5e9, **more))


def needs(foresight: Foresight) -> dict:
    return {need.name: need for need in foresight.needs}


def training(**job) -> Foresight:
    given = {"accelerator": "b200", "processes": 8, "memory_bytes_per_host": 512 * GiB, **job}
    return foreseen("training", "unet3d", **given)


def test_training_is_foreseen(tmp_path: Path) -> None:
    told = training(hosts=4, data="s3://bucket/data", division="closed", write_bytes_per_second=1e9)
    assert told.sizes[0].files == 75_001  # five times 2 TiB
    found = needs(told)
    record, batch, seconds = 146_600_628, 7, 0.162
    assert found["network a host"].needed == pytest.approx(2 * batch * record / seconds * 0.9)
    assert found["network a host"].fits is True
    assert "at most 2 accelerators a host" in found["network a host"].told
    steps = told.sizes[0].files // (batch * 8)
    assert found["time of a run"].needed == pytest.approx(5 * steps * seconds)
    assert found["time of all runs"].needed == pytest.approx(6 * found["time of a run"].needed)
    assert found["time to generate"].needed == pytest.approx(told.sizes[0].total_bytes / 4e9)
    assert found["memory a host"].fits is True
    assert told.verdict.validation == "closed"


def test_a_port_that_is_too_slow_is_told() -> None:
    told = needs(training(data="s3://bucket/data"))["network a host"]
    assert told.fits is False
    assert "too little" in told.line


def test_space_and_inodes_come_from_the_target(tmp_path: Path) -> None:
    told = training(data=str(tmp_path / "not" / "made"), results=str(tmp_path), division="closed")
    space = os.statvfs(tmp_path)
    found = needs(told)
    assert found["space"].have == pytest.approx(space.f_bavail * space.f_frsize, rel=0.05)
    assert found["inodes"].needed == told.sizes[0].files + told.sizes[0].subfolders
    assert told.surroundings.apart is False
    assert {"CAP-03", "3.4.2"} <= {each.rule for each in told.verdict.of(BROKEN)}
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_are_foreseen() -> None:
    told = foreseen(
        "checkpointing",
        "llama3-405b",
        accelerator="b200",
        processes=512,
        hosts=64,
        memory_bytes_per_host=1024 * GiB,
        division="closed",
        data="s3://bucket/x",
    )
    found = needs(told)
    size = told.sizes[0]
    assert found["space"].needed == size.written_bytes
    assert found["inodes"].needed == 10 * size.files + 10
    assert found["memory a host"].needed == size.host_bytes[0]
    moved = (size.written_bytes + size.read_bytes) / 64
    assert found["time of a run"].needed == pytest.approx(20 * 5 + moved / 12.5e9)
    assert told.verdict.validation == "closed"
    assert "4.6.1" in {each.rule for each in told.verdict.of(HOLDS)}


def test_collections_and_caches_are_foreseen() -> None:
    told = foreseen("vector_database", "HNSW", vectors=10_000_000, division="closed")
    found = needs(told)
    assert found["space"].needed == told.sizes[0].total_bytes
    assert "storage is hardly asked" in found["memory of the engine"].told
    caches = foreseen("kv_cache", "llama3.1-8b", division="closed", processes=4, hosts=2)
    assert [size.users_per_client for size in caches.sizes] == [200, 100, 70]
    assert needs(caches)["time of a run"].needed == 9 * 300 + 2 * 90
    own = foreseen("kv_cache", "tiny-1b", division="open", users=10, overrides={"cpu_mem_gb": 4})
    assert own.sizes[0].tier_bytes == 4 * GiB
    assert "time of a run" not in needs(own)


def test_what_only_the_run_can_tell_is_listed_with_the_reason() -> None:
    told = training(hosts=2, division="closed")
    later = {each.rule: each.reason for each in told.verdict.of(LATER)}
    assert later["CAP-02"] == "the gate tells when the run starts"
    assert later["3.3.2"] == "takes what the run leaves behind"


def test_what_the_asker_knows_stands() -> None:
    told = training(files=5, files_made=5, needed_bytes=0, needed_files=0, division="open", data="/", results="/x")
    assert {"3.3.1", "3.2.1"} <= {each.rule for each in told.verdict.of(BROKEN)}
    assert "CAP-01" in {each.rule for each in told.verdict.of(HOLDS)}


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("unet3d", "training"),
        ("llama3-8b", "checkpointing"),
        ("AISAQ", "vector_database"),
        ("llama3.1-8b", "kv_cache"),
        ("nonsense", "training"),
    ],
)
def test_a_model_tells_its_family(model: str, family: str) -> None:
    assert family_of(model) == family


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="no such family"):
        foreseen("inference", "unet3d")
    with pytest.raises(UnknownNameError, match="unet3d"):
        foreseen("training", "unet2d", accelerator="b200")
    with pytest.raises(UsageError, match="cpu_mem_gb is no memory"):
        foreseen("kv_cache", "tiny-1b", users=10, overrides={"cpu_mem_gb": "much"})
    with pytest.raises(UsageError, match="multiple of 256"):
        foreseen("checkpointing", "llama3-405b", processes=8)


def port(folder: Path, name: str, speed: str, state: str = "up", device: bool = True) -> None:
    place = folder / name
    place.mkdir()
    (place / "speed").write_text(speed)
    (place / "operstate").write_text(state)
    if device:
        (place / "device").mkdir()


def test_the_fastest_port_that_is_up_counts(tmp_path: Path) -> None:
    port(tmp_path, "eth0", "25000\n")
    port(tmp_path, "eth1", "100000\n")
    port(tmp_path, "eth2", "400000\n", state="down")
    port(tmp_path, "br0", "800000\n", device=False)
    port(tmp_path, "virt", "-1\n")
    port(tmp_path, "odd", "fast\n")
    assert line_rate(tmp_path) == (12.5e9, "eth1")
    assert line_rate(tmp_path / "none") == (None, "")


def test_surroundings_of_what_is_no_folder() -> None:
    assert look_around("").networked is None
    assert look_around("s3://bucket/x").networked is True
    assert look_around("mem://").networked is False
    assert look_around("/").free_bytes is not None
