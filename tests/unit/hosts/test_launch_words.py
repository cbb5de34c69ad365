"""The words that start ranks: Open MPI's and MPICH's differ, and nothing secret stands in either."""

import os
from pathlib import Path

import msgspec
import pytest

from stoker.bench.run.hosts.mpirun import (
    Launcher,
    MpiOptions,
    address_towards,
    command_line,
    find_launcher,
    identify,
    launch_environment,
    launcher_variables,
    parse_version,
    passed_variables,
)
from stoker.bench.run.hosts.names import Host
from stoker.bench.run.hosts.start import launch_wanted, plan_launch, started_with
from stoker.core.errors import PreflightError, UsageError
from stoker.core.options import Setting

OPEN_MPI_4 = Launcher("/usr/bin/mpirun", "openmpi", (4, 1, 4))
OPEN_MPI_5 = Launcher("/opt/bin/mpirun", "openmpi", (5, 0, 6))
MPICH = Launcher("/v/bin/mpiexec", "mpich", (5, 0, 2))
HOSTS = (Host("a", 3), Host("b", 1))
SSH = "-o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=accept-new"


@pytest.fixture(autouse=True)
def plain_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOKER_SSH_CONFIG", raising=False)


def settings(**changes: object) -> dict[str, Setting]:
    values: dict[str, object] = {
        "hosts": "a:3,b:1",
        "launcher": "auto",
        "mpi_bin": None,
        "mpi_btl": "auto",
        "oversubscribe": False,
        "allow_run_as_root": False,
        "mpi_params": None,
    }
    return {name: Setting(value) for name, value in {**values, **changes}.items()}


def test_open_mpi_4() -> None:
    options = MpiOptions(btl="tcp", oversubscribe=True, allow_run_as_root=True, params=("--mca a 'b c'", "-v"))
    words = command_line(OPEN_MPI_4, HOSTS, options, ["prog", "x y"], ["PATH", "AWS_SECRET_ACCESS_KEY"])
    assert words == [
        *["/usr/bin/mpirun", "-n", "4", "--host", "a:3,b:1", "--oversubscribe", "--allow-run-as-root"],
        *["--mca", "btl", "self,tcp", "--bind-to", "none", "--mca", "plm_rsh_args", SSH],
        *["-x", "PATH", "-x", "AWS_SECRET_ACCESS_KEY", "--mca", "a", "b c", "-v", "prog", "x y"],
    ]


def test_open_mpi_5_has_other_words_for_the_same() -> None:
    words = command_line(OPEN_MPI_5, (Host("a", 2),), MpiOptions(btl="vader", params=("--bind-to core",)), ["p"])
    assert words[words.index("btl") + 1] == "self,sm"
    assert words[words.index("--prtemca") + 1] == "plm_ssh_args"
    assert words.count("--bind-to") == 1 and words[words.index("--bind-to") + 1] == "core"


def test_mpich() -> None:
    words = command_line(MPICH, HOSTS, MpiOptions(own_address="10.0.0.1"), ["p"], ["PATH", "AWS_REGION"])
    assert words == [
        *["/v/bin/mpiexec", "-n", "4", "-hosts", "a:3,b:1", "-localhost", "10.0.0.1"],
        *["-genvlist", "PATH,AWS_REGION", "p"],
    ]
    words = command_line(MPICH, HOSTS, MpiOptions(folder="/home/user/a b"), ["p"])
    assert words[-3:] == ["-wdir", "/home/user/a b", "p"]
    words = command_line(MPICH, HOSTS, MpiOptions(own_address="10.0.0.1", params=("-iface ib0",)), ["p"])
    assert "-localhost" not in words and words[-3:] == ["-iface", "ib0", "p"]
    assert launch_environment(MPICH, {})["HYDRA_LAUNCHER_EXTRA_ARGS"] == SSH


def test_open_mpi_takes_its_own_library() -> None:
    assert launch_environment(OPEN_MPI_4, {})["MPI4PY_MPIABI"] == "openmpi"
    assert launch_environment(OPEN_MPI_4, {"MPI4PY_MPIABI": "mpiabi"})["MPI4PY_MPIABI"] == "mpiabi"


def test_ranks_are_told_what_they_should_have_and_the_last_variable_is_nobodys() -> None:
    """Hydra loses the one that stands last."""
    found = launch_environment(MPICH, {"PATH": "p", "ZZ_LAST": "0", "AWS_REGION": "r", "HOME": "h"})
    assert found["STOKER_PASSED_NAMES"] == "AWS_REGION,PATH"
    assert list(found)[-1] == "ZZ_LAST"


@pytest.mark.parametrize(
    ("launcher", "hosts", "options", "match"),
    [
        (MPICH, HOSTS, MpiOptions(btl="tcp"), "for Open MPI"),
        (OPEN_MPI_4, HOSTS, MpiOptions(btl="vader"), "one host only"),
        (OPEN_MPI_4, HOSTS, MpiOptions(btl="ucx"), "unknown value"),
        (OPEN_MPI_4, (Host("::1", 1),), MpiOptions(), "IPv6"),
    ],
)
def test_what_a_launcher_cannot_do_is_refused(
    launcher: Launcher, hosts: tuple[Host, ...], options: MpiOptions, match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        command_line(launcher, hosts, options, ["p"])


@pytest.mark.parametrize(
    ("told", "kind", "version"),
    [
        ("mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n", "openmpi", (4, 1, 4)),
        ("prterun (PRRTE) 3.0.7\n", "openmpi", (3, 0, 7)),
        ("HYDRA build details:\n    Version:                                 5.0.2\n", "mpich", (5, 0, 2)),
    ],
)
def test_launchers_are_told_apart_by_what_they_say(told: str, kind: str, version: tuple[int, ...]) -> None:
    assert parse_version("/x", told) == Launcher("/x", kind, version)


def test_an_unknown_launcher_is_refused_with_what_it_said() -> None:
    with pytest.raises(PreflightError, match="Intel"):
        parse_version("/x", "Intel(R) MPI Library for Linux* OS, Version 2021.10")
    with pytest.raises(PreflightError, match="does not start"):
        identify("/no/such/launcher")
    with pytest.raises(PreflightError, match="no MPI launcher"):
        find_launcher("mpirun-of-nobody")


def test_a_script_of_the_right_name_is_asked_and_not_believed(tmp_path: Path) -> None:
    script = tmp_path / "mpirun"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    with pytest.raises(PreflightError, match="hello"):
        identify(str(script))


def test_what_decides_is_passed_on_and_nothing_else() -> None:
    environment = dict.fromkeys(("PATH", "HOME", "STOKER_KERNELS", "AWS_REGION", "SECRET", "FI_PROVIDER"), "x")
    assert passed_variables(environment) == ["AWS_REGION", "FI_PROVIDER", "PATH", "STOKER_KERNELS"]


def test_variables_that_change_the_launcher_are_told_of() -> None:
    environment = {"OMPI_MCA_btl": "tcp", "OMPI_MCA_orte_hnp_uri": "own", "HYDRA_IFACE": "ib0", "HOME": "x"}
    assert launcher_variables(environment) == {"HYDRA_IFACE": "ib0", "OMPI_MCA_btl": "tcp"}
    told = started_with({**environment, "STOKER_STARTED_WITH": "MPICH 5 on a:1"})
    assert told == ", started by MPICH 5 on a:1, with HYDRA_IFACE=ib0, OMPI_MCA_btl=tcp"
    assert started_with({}) == ""


def test_hosts_are_started_once_and_never_by_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OMPI_", "PMI_", "PMIX_", "PALS_", "SLURM_")):
            monkeypatch.delenv(name)
    assert launch_wanted(settings())
    assert not launch_wanted(settings(hosts=None))
    with pytest.raises(UsageError, match="local ranks"):
        launch_wanted(settings(launcher="local"))
    monkeypatch.setenv("STOKER_STARTED_WITH", "x")
    assert not launch_wanted(settings())
    monkeypatch.delenv("STOKER_STARTED_WITH")
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setenv("PMI_RANK", "0")
    assert not launch_wanted(settings())


@pytest.mark.skipif(not Path(find_launcher("sh")).exists(), reason="no shell")
def test_a_plan_tells_what_cannot_be_held_before_anything_is_started(tmp_path: Path) -> None:
    script = tmp_path / "mpirun"
    script.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 4.1.4'\n")
    script.chmod(0o755)
    launch = plan_launch(settings(mpi_bin=str(script), hosts="127.0.0.1:4"), 3)
    assert launch.hosts == (Host("127.0.0.1", 3),)
    assert launch.launcher == Launcher(str(script), "openmpi", (4, 1, 4))
    assert msgspec.json.decode(msgspec.json.encode(launch), type=type(launch)) == launch
    with pytest.raises(UsageError, match="at least 5"):
        plan_launch(settings(mpi_bin=str(script), hosts="127.0.0.1:4"), 5)


def test_no_address_is_needed_towards_oneself() -> None:
    assert address_towards((Host("127.0.0.1", 1), Host("localhost", 1))) == ""
