"""The command line that starts ranks on many hosts, for Open MPI and for MPICH. Pure but for asking which one it is."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.run.hosts.names import Host
from stoker.core.errors import PreflightError, UsageError

OPEN_MPI: Final = "openmpi"
MPICH: Final = "mpich"
SSH_SECONDS: Final = 5
_VERSION_SECONDS: Final = 20.0
_BTLS: Final = ("auto", "vader", "tcp")
# What the ranks need of the conductor's environment: where programs lie, and what decides how we and MPI behave.
_PASSED_NAMES: Final = frozenset(
    ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "TMPDIR", "LC_ALL", "LANG", "NO_COLOR")
)
_PASSED_PREFIXES: Final = (
    "STOKER_",
    "DLIO_",
    "AWS_",
    "AZURE_",
    "GOOGLE_",
    "MPI4PY_",
    "OPENBLAS_",
    "OMP_",
    "UCX_",
    "FI_",
    "MPIR_CVAR_",
    "MALLOC_",
)
LAUNCHER_PREFIXES: Final = (
    "OMPI_MCA_",
    "PRTE_MCA_",
    "PMIX_MCA_",
    "MPIR_CVAR_",
    "MPICH_",
    "HYDRA_",
    "UCX_",
    "FI_",
    "MPI4PY_",
    "I_MPI_",
)
"""Variables that change what a launcher or its library does: a result tells which were set."""
PASSED_VARIABLE: Final = "STOKER_PASSED_NAMES"
"""Names of the variables that every rank should get; the trial of a launcher looks whether it did."""
# Hydra 5.0 does not pass on the variable that stands last in its environment: let it be one that nobody needs.
_LAST_VARIABLE: Final = "ZZ_LAST"
_OWN: Final = re.compile(
    r"OMPI_MCA_(?:ess|orte|pmix|mpi_oversubscribe|hwloc_base_binding|initial_wdir|shmem|plm|rmaps|btl_vader_single)"
    r"|(?:PRTE|PMIX)_MCA_(?:prte|pmix|ess|gds|ptl)|HYDRA_LAUNCHER_EXTRA_ARGS"
)
"""Those that the launcher, or we, set for a rank by itself."""


class MpiOptions(msgspec.Struct, frozen=True):
    """What may be asked of a launcher. `params` are added as they are; ranks work in `folder`, where one is named."""

    binary: str = ""
    btl: str = "auto"
    oversubscribe: bool = False
    allow_run_as_root: bool = False
    params: tuple[str, ...] = ()
    own_address: str = ""
    folder: str = ""


class Launcher(msgspec.Struct, frozen=True):
    """A launcher that was found: its path, whose it is, and its version."""

    path: str
    kind: str
    version: tuple[int, ...]

    @property
    def told(self) -> str:
        """Return its name for people."""
        name = "Open MPI" if self.kind == OPEN_MPI else "MPICH"
        return f"{name} {'.'.join(map(str, self.version))} ({self.path})"


def find_launcher(binary: str = "") -> str:
    """Return the path of the launcher: the one named, else mpiexec beside this interpreter, else one on the path.

    Raises PreflightError when there is none.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    if binary:
        found = binary if os.sep in binary and os.access(binary, os.X_OK) else shutil.which(binary)
        beside_named = Path(sys.executable).with_name(binary) if os.sep not in binary else beside
        found = str(beside_named) if os.sep not in binary and beside_named.exists() else found
    else:
        found = str(beside) if beside.exists() else shutil.which("mpirun") or shutil.which("mpiexec")
    if not found:
        from stoker.bench.run.hosts.packages import install_command

        raise PreflightError(
            "no MPI launcher",
            where=binary or "mpirun, mpiexec",
            expected="one on the path, or named by --mpi-bin",
            remedy=f"pip install 'stoker[mpi]', or {install_command('mpi')}",
        )
    return found


def identify(path: str) -> Launcher:
    """Return what kind of launcher lies at `path`, by asking it. Raises PreflightError for one we do not know."""
    try:
        ended = subprocess.run(  # noqa: S603 - the launcher that was asked for
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        told = ended.stdout + ended.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PreflightError("launcher does not start", where=path, got=str(error)) from error
    return parse_version(path, told)


def parse_version(path: str, told: str) -> Launcher:
    """Return what a launcher says of itself. Raises PreflightError when it is neither Open MPI nor MPICH."""
    for kind, pattern in (
        (OPEN_MPI, r"\(Open MPI\)\s+v?(\d+(?:\.\d+)*)"),
        (OPEN_MPI, r"\(PRRTE\)\s+v?(\d+(?:\.\d+)*)"),
        (MPICH, r"HYDRA build details:\s+Version:\s+(\d+(?:\.\d+)*)"),
    ):
        match = re.search(pattern, told)
        if match:
            return Launcher(path, kind, tuple(map(int, match[1].split("."))))
    raise PreflightError(
        "unknown MPI launcher",
        where=path,
        expected="Open MPI or MPICH",
        got=" ".join(told.split())[:120] or "nothing",
        remedy="start stoker with it yourself: mpirun … stoker run …",
    )


def command_line(
    launcher: Launcher,
    hosts: Sequence[Host],
    options: MpiOptions,
    program: Sequence[str],
    variables: Sequence[str] = (),
) -> list[str]:
    """Return the words that start `program` once for every slot of `hosts`, passing `variables` on by name.

    Raises UsageError for what the launcher cannot do.
    """
    ranks = sum(host.slots for host in hosts)
    _check(launcher, hosts, options)
    own = (
        _open_mpi(launcher, hosts, options, variables)
        if launcher.kind == OPEN_MPI
        else _mpich(hosts, options, variables)
    )
    words = [launcher.path, "-n", str(ranks), *own, *(["-wdir", options.folder] if options.folder else [])]
    for extra in options.params:
        words += shlex.split(extra)
    return [*words, *program]


def _check(launcher: Launcher, hosts: Sequence[Host], options: MpiOptions) -> None:
    if options.btl not in _BTLS:
        raise UsageError("--mpi-btl: unknown value", where=options.btl, expected=", ".join(_BTLS))
    if launcher.kind == MPICH and options.btl != "auto":
        raise UsageError("--mpi-btl is for Open MPI", got=launcher.told, remedy="leave it out")
    if options.btl == "vader" and len(hosts) > 1:
        raise UsageError("--mpi-btl vader reaches one host only", got=f"{len(hosts)} hosts", remedy="use auto or tcp")
    bad = next((host.name for host in hosts if ":" in host.name), None)
    if bad is not None:
        raise UsageError("MPI launchers take no IPv6 address", where=bad, remedy="give the host's name")


def _open_mpi(launcher: Launcher, hosts: Sequence[Host], options: MpiOptions, variables: Sequence[str]) -> list[str]:
    words = ["--host", ",".join(f"{host.name}:{host.slots}" for host in hosts)]
    words += ["--oversubscribe"] if options.oversubscribe else []
    words += ["--allow-run-as-root"] if options.allow_run_as_root else []
    if options.btl != "auto":
        shared = "vader" if launcher.version[0] < 5 else "sm"
        words += ["--mca", "btl", f"self,{shared if options.btl == 'vader' else 'tcp'}"]
    if not any("bind-to" in extra for extra in options.params):
        words += ["--bind-to", "none"]  # a rank has reader threads that need more than one core
    words += ["--mca" if launcher.version[0] < 5 else "--prtemca", *_open_mpi_ssh(launcher)]
    for name in variables:
        words += ["-x", name]
    return words


def _open_mpi_ssh(launcher: Launcher) -> list[str]:
    return ["plm_rsh_args" if launcher.version[0] < 5 else "plm_ssh_args", " ".join(ssh_options())]


def _mpich(hosts: Sequence[Host], options: MpiOptions, variables: Sequence[str]) -> list[str]:
    """Hydra passes the whole environment on unless told which; it neither binds nor counts slots unless asked."""
    words = ["-hosts", ",".join(f"{host.name}:{host.slots}" for host in hosts)]
    named = any("-localhost" in extra or "-iface" in extra for extra in options.params)
    words += ["-localhost", options.own_address] if options.own_address and not named else []
    return words + (["-genvlist", ",".join(variables)] if variables else [])


def address_towards(hosts: Sequence[Host]) -> str:
    """Return this host's address on the way to the first host that is another one; empty where there is none.

    Hydra has the other hosts call back, by the name of this one, which they need not know.
    """
    for host in hosts:
        try:
            family, kind, _, _, place = socket.getaddrinfo(_address_of(host.name), 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(place)  # sends nothing: the kernel only looks for the way
                own = str(probe.getsockname()[0])
        except OSError:
            continue
        if not own.startswith("127.") and own not in ("::1", place[0]):
            return own
    return ""


def _address_of(name: str) -> str:
    """Return what ssh takes a name for: it may be one that only its configuration knows."""
    try:
        words = ["ssh", *ssh_options(), "-G", "--", name]
        told = subprocess.run(  # noqa: S603 - ssh, that prints its settings
            words, capture_output=True, text=True, timeout=_VERSION_SECONDS, check=False, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return name
    found = re.search(r"^hostname (\S+)$", told, re.MULTILINE)
    return found[1] if found else name


def ssh_options() -> list[str]:
    """Return the options of every ssh that is started for us: it never asks, and does not wait for long."""
    config = os.environ.get("STOKER_SSH_CONFIG")
    settings = ("BatchMode=yes", f"ConnectTimeout={SSH_SECONDS}", "StrictHostKeyChecking=accept-new")
    return [*(["-F", config] if config else []), *(word for setting in settings for word in ("-o", setting))]


def launch_environment(launcher: Launcher, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which the launcher is started: mpi4py is told whose library to load."""
    changed = {**environment}
    if launcher.kind == OPEN_MPI:  # left alone, mpi4py takes the MPICH beside this interpreter, if there is one
        changed.setdefault("MPI4PY_MPIABI", OPEN_MPI)
    if launcher.kind == MPICH:
        changed["HYDRA_LAUNCHER_EXTRA_ARGS"] = " ".join(ssh_options())
    changed[PASSED_VARIABLE] = ",".join(passed_variables(changed))
    changed.pop(_LAST_VARIABLE, None)
    changed[_LAST_VARIABLE] = "1"
    return changed


def passed_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that the ranks get on every host."""
    return sorted(name for name in environment if name in _PASSED_NAMES or name.startswith(_PASSED_PREFIXES))


def launcher_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that change what a launcher or its library does, for the result to tell of."""
    names = (name for name in sorted(environment) if name.startswith(LAUNCHER_PREFIXES) and not _OWN.match(name))
    return {name: environment[name][:200] for name in names}


def options_from(settings: Mapping[str, Any]) -> MpiOptions:
    """Return the launcher's options of a command line's settings."""
    value = {
        name: settings[name].value
        for name in ("mpi_bin", "mpi_btl", "oversubscribe", "allow_run_as_root", "mpi_params")
    }
    return MpiOptions(
        value["mpi_bin"] or "",
        value["mpi_btl"],
        bool(value["oversubscribe"]),
        bool(value["allow_run_as_root"]),
        tuple(value["mpi_params"] or ()),
    )
