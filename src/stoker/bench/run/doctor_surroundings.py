"""What a run on this machine leans on outside itself: SSH, a scheduler, credentials of object stores, mount options."""

import os
import re
import resource
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from stoker.bench.run.gates import GateRequest, run_gates
from stoker.bench.run.gates.looking import LOCAL_SCHEMES, existing
from stoker.bench.run.hosts.facts import CREDENTIALS
from stoker.bench.run.hosts.judging import OPEN_FILES_WANTED, SHARED_MEMORY_WANTED_BYTES, Check
from stoker.bench.run.hosts.packages import install_command
from stoker.bench.workloads.mounts import Mount, mount_of
from stoker.core.units import format_bytes
from stoker.storage.url import parse_url

SCHEMES: Final = {"s3": "Amazon S3 and its kind", "az": "Azure", "gs": "Google"}
NFS: Final = ("nfs", "nfs4")
NFS_REQUEST_WANTED: Final = 1 << 20
_SIZE: Final = re.compile(r"(rsize|wsize)=(\d{1,12})")


def ssh_client() -> Check:
    """SSH reaches other hosts: for their checks and, with most launchers, for their ranks."""
    found = shutil.which("ssh")
    if found is None:
        return Check("ssh client", "note", "none found: no other hosts can be reached", install_command("ssh"))
    return Check("ssh client", "ok", found)


def scheduler(environment: Mapping[str, str] | None = None) -> Check:
    """Tell whether a scheduler started this shell: its launcher places ranks, and hosts need not answer to SSH."""
    environment = os.environ if environment is None else environment
    job = environment.get("SLURM_JOB_ID", "")
    if job and shutil.which("srun", path=environment.get("PATH")):
        return Check("scheduler", "ok", f"Slurm, job {job}: srun can start the ranks")
    if job:
        return Check("scheduler", "warn", f"Slurm, job {job}, without srun", "load the module that brings srun")
    if any(name.startswith("PALS_") for name in environment):
        return Check("scheduler", "ok", "PALS: its launcher starts the ranks")
    return Check("scheduler", "ok", "none: ranks are started here, by mpirun or over SSH")


def credentials(target: str | None = None, environment: Mapping[str, str] | None = None) -> Iterator[Check]:
    """Yield whether the credentials of the target's scheme are set, or without one those of which schemes are.

    Names are told, values never. A role or a configuration file may give them, too, so that their lack is a note.
    """
    environment = os.environ if environment is None else environment
    lacking = {scheme: [name for name in CREDENTIALS[scheme] if not environment.get(name)] for scheme in SCHEMES}
    if target is None:
        told = ", ".join(f"{scheme} {'not ' if missing else ''}set" for scheme, missing in lacking.items())
        yield Check("credentials", "ok", f"in the environment: {told}")
        return
    scheme = parse_url(target).scheme if "://" in target else ""
    if scheme not in SCHEMES:
        return
    if lacking[scheme]:
        told = f"not in the environment: {', '.join(lacking[scheme])}"
        yield Check(f"credentials {scheme}", "note", told, f"needed for {scheme}:// unless a role gives them")
    else:
        yield Check(f"credentials {scheme}", "ok", f"those of {SCHEMES[scheme]} are in the environment")


def mount_checks(folder: Path, mount: Mount | None = None) -> Iterator[Check]:
    """Yield what a folder's mount options mean for a run."""
    mount = mount or mount_of(folder)
    if mount is None:
        return
    told = f"{mount.kind} at {mount.point}: {','.join(mount.options)}"
    remedies = list(_mount_remedies(mount))
    yield Check("target mount", "warn" if remedies else "ok", told, "; ".join(remedies))


def _mount_remedies(mount: Mount) -> Iterator[str]:
    options = set(mount.options)
    if "ro" in options:
        yield "read-only: only a dataset that is there can be read; mount it rw to write"
    if "sync" in options:
        yield "sync: every write waits for the disk; mount it async unless that is what is measured"
    if mount.kind not in NFS:
        return
    if "soft" in options:
        yield "soft: a slow server becomes an error in the middle of a run; mount it hard"
    if "noac" in options:
        yield "noac: every look at a file asks the server; leave it out"
    for option in options:
        size = _SIZE.fullmatch(option)
        if size and int(size[2]) < NFS_REQUEST_WANTED:
            yield f"{option}: small requests; {size[1]}={NFS_REQUEST_WANTED} where the server takes it"


def open_files() -> Check:
    """Each rank keeps many files open at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_WANTED:
        wanted = min(OPEN_FILES_WANTED, hard) if hard > 0 else OPEN_FILES_WANTED
        return Check("open files", "warn", f"limit {soft}", f"ulimit -n {wanted}")
    return Check("open files", "ok", f"limit {soft}")


def shared_memory() -> Check:
    """Ranks of one host meet in shared memory."""
    folder = Path("/dev/shm")  # noqa: S108 - the place itself is what is checked
    if not folder.is_dir():
        return Check("shared memory", "warn", "no /dev/shm", "mount a tmpfs there")
    free_bytes = shutil.disk_usage(folder).free
    status = "ok" if free_bytes >= SHARED_MEMORY_WANTED_BYTES else "warn"
    return Check(
        "shared memory", status, f"{format_bytes(free_bytes)} free", "" if status == "ok" else "enlarge /dev/shm"
    )


def preflight_here(target: str) -> Iterator[Check]:
    """Yield what a run of this host alone leans on: its limits, its shared memory, the credentials and the mount."""
    yield open_files()
    yield shared_memory()
    yield from credentials(target)
    place = parse_url(target)
    if place.scheme in LOCAL_SCHEMES:
        yield from mount_checks(existing(Path(place.path)))


def gate_checks(target: str, results: str) -> Iterator[Check]:
    """Yield the gates that stand before a run, made as the run would make them: CAP-01, CAP-02, CAP-03."""
    for gate in run_gates(GateRequest(target=target, results=results)).gates:
        yield Check(f"gate {gate.id}", _STATUS[gate.state], f"{gate.name}: {gate.observed}", gate.remedy)


_STATUS: Final = {"passed": "ok", "exempt": "ok", "failed": "fail"}
