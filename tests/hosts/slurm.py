"""A real Slurm on this machine for the tests: a controller, and two nodes that are daemons beside each other."""

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.loopback import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch")
NODES = ("n0", "n1")
_PATHS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_READY_SECONDS = 30.0


def missing() -> str:
    """Return why there is no Slurm here, empty when there can be one."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=_PATHS)]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)}): apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "Slurm's daemons on one machine need root"


class Slurm:
    """The cluster. Its folder must have a short path: the socket of munge lies in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a client of this cluster has in its environment."""
        return {**os.environ, "PATH": _PATHS, "SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Start the daemons and wait until both nodes take work."""
        folder = self.folder
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.configuration.write_text(self._configuration())
        files = {"socket": "munge.sock", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munge.seed"}
        self._daemon("munged", "--force", f"--key-file={key}", *(f"--{k}={folder / v}" for k, v in files.items()))
        self._daemon("slurmctld", "-f", str(self.configuration))
        for node in NODES:
            self._daemon("slurmd", "-N", node, "-f", str(self.configuration))
        deadline = time.monotonic() + _READY_SECONDS
        while self.run("sinfo", "-h", "-o", "%T %D").stdout.split() != ["idle", str(len(NODES))]:
            if time.monotonic() > deadline:
                logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("*.log"))
                raise AssertionError(f"Slurm did not come up:\n{logs}")
            time.sleep(0.2)

    def stop(self) -> None:
        """End all jobs and daemons."""
        self.run("scancel", "--user=root", "--signal=KILL")
        for name in ("slurmd-n0", "slurmd-n1", "slurmctld", "munged"):
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / f"{name}.pid").read_text()), signal.SIGTERM)

    def run(self, *words: str, seconds: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a client of the cluster to its end."""
        return subprocess.run(
            words, env={**self.environment, **variables}, capture_output=True, text=True, timeout=seconds, check=False
        )

    def _daemon(self, *words: str) -> None:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)

    def _configuration(self) -> str:
        host, folder, ports = os.uname().nodename.split(".")[0], self.folder, free_ports(1 + len(NODES))
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=500 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        )
        return f"""ClusterName=stoker
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes={",".join(NODES)} Default=YES State=UP OverSubscribe=YES
"""
