"""Which launcher started us is read from its variables, without starting MPI."""

import pytest

from stoker.bench.run.launch_mpi import MpiLaunch, choose_launcher, detect
from stoker.core.errors import UsageError


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"PMI_SIZE": "4", "PMI_RANK": "2"}, MpiLaunch("PMI_SIZE=4", 2, 4)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, MpiLaunch("OMPI_COMM_WORLD_SIZE=2", 1, 2)),
        ({"PMIX_RANK": "3"}, MpiLaunch("PMIX_RANK=3", 3, None)),
        (
            {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_NTASKS": "8"},
            MpiLaunch("SLURM_STEP_NUM_TASKS=8", 5, 8),
        ),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, None),
        ({"PMI_SIZE": "many"}, None),
        ({}, None),
    ],
)
def test_variables_tell_the_launcher(environment: dict[str, str], found: MpiLaunch | None) -> None:
    assert detect(environment) == found


@pytest.mark.parametrize(
    ("asked", "environment", "chosen"),
    [
        ("auto", {}, "local"),
        ("auto", {"PMI_SIZE": "2"}, "mpi"),
        ("auto", {"PMI_SIZE": "1"}, "local"),
        ("auto", {"PMIX_RANK": "0"}, "mpi"),
        ("mpi", {"PMI_SIZE": "1"}, "mpi"),
        ("local", {"PMI_SIZE": "1"}, "local"),
        ("local", {}, "local"),
    ],
)
def test_the_launcher_follows_from_both(asked: str, environment: dict[str, str], chosen: str) -> None:
    assert choose_launcher(asked, environment)[0] == chosen


@pytest.mark.parametrize(
    ("asked", "environment", "told"),
    [
        ("mpi", {}, "mpirun -n"),
        ("local", {"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE=2"),
        ("slurm", {}, "auto, local, mpi or tcp"),
    ],
)
def test_what_does_not_go_together_is_refused(asked: str, environment: dict[str, str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        choose_launcher(asked, environment)
