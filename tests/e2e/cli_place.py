"""The installed command as a user types it: each run is a process of its own in a folder of its own."""

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STOKER = str(Path(sys.executable).with_name("stoker"))
RUN_SECONDS = 100
MARK = "E2E_MARK"
COSMOFLOW = ("--model", "cosmoflow", "--accelerator", "a100:1")
QUICK = ("--computation-time", "5ms", "--batch-size", "2")
OTHERS_VARIABLES = ("STOKER_", "AWS_", "AZURE_", "GOOGLE_", "OMPI_", "PMI", "PALS_", "SLURM_", "NO_COLOR", "COLUMNS")
CAPABILITIES_OVER_MODES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
PR_CAPBSET_DROP = 24


def environment(**more: str) -> dict[str, str]:
    """The environment without what would change the outcome, and with `more`."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(OTHERS_VARIABLES)}
    return {**kept, **more}


def obey_modes() -> None:
    """Have even the superuser stopped by the modes of files and folders."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        for capability in CAPABILITIES_OVER_MODES:
            libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object on stdout, and nothing else there."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def sentence(self) -> str:
        """The one sentence on stderr that tells of an error."""
        lines = self.errors.splitlines()
        assert len(lines) == 1, self.errors
        assert lines[0].startswith("stoker: "), self.errors
        assert "Traceback" not in self.errors + self.out
        return lines[0].removeprefix("stoker: ")

    def refused(self, code: int, *words: str) -> None:
        """Assert the exit code, an empty stdout, and one sentence that holds all `words`."""
        assert self.code == code, (self.code, self.errors, self.out)
        assert self.out == ""
        for word in words:
            assert word in self.sentence


@dataclass
class Running:
    """A command that runs; every process it starts carries a mark in its environment."""

    process: subprocess.Popen[str]
    mark: str

    def wait_until(self, reached: Callable[[], bool], *, seconds: float = 40) -> None:
        """Wait until something is so while the command runs."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.process.communicate()
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError("the command did not come so far in time")
            time.sleep(0.01)

    def wait_until_it_handles(self, number: int) -> None:
        """Wait until the process has a handler for the signal."""
        status = Path(f"/proc/{self.process.pid}/status")

        def caught() -> bool:
            line = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt"))
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)

        self.wait_until(caught)

    def stop(self, number: int) -> tuple[Done, float]:
        """Send the signal; return how it ended and after how many seconds."""
        start = time.monotonic()
        self.process.send_signal(number)
        done = self.end()
        return done, time.monotonic() - start

    def end(self) -> Done:
        """Wait for its end."""
        try:
            out, errors = self.process.communicate(timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return Done(self.process.returncode, out, errors)

    def kill(self) -> None:
        """Kill the whole process group, as a shell or a scheduler does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def children(self) -> list[int]:
        """Every other process that this command has started and that still lives."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid]

    def leaves_no_process(self) -> bool:
        """Tell whether all its processes end within a few seconds of its own end."""
        deadline = time.monotonic() + 10
        while self.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.children()


def marked(mark: str) -> Iterator[int]:
    """The processes whose environment carries the mark; a zombie's is empty."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                yield int(entry.name)
        except OSError:
            continue


@dataclass(frozen=True)
class Place:
    """A folder that commands are run in."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def stoker(self, *words: str, prepare: Callable[[], None] | None = None, **variables: str) -> Done:
        """Run the command to its end; `prepare` is called in its process before it begins."""
        done = subprocess.run(
            [STOKER, *words],
            cwd=self.folder,
            env=environment(**self.variables, **variables),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            preexec_fn=prepare,
            stdin=subprocess.DEVNULL,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def shell(self, script: str, **variables: str) -> Done:
        """Run a line of bash in which `stoker` is ours."""
        path = f"{Path(STOKER).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=environment(PATH=path, **self.variables, **variables),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **variables: str) -> Running:
        """Start the command in a session of its own."""
        mark = uuid.uuid4().hex
        process = subprocess.Popen(
            [STOKER, *words],
            cwd=self.folder,
            env=environment(**self.variables, **variables, **{MARK: mark}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        return Running(process, mark)

    def make(self, name: str, *, files: int = 16, size: str = "16KiB") -> Path:
        """Make a small dataset of ours in the folder `name`."""
        done = self.stoker("gen", name, "--format", "npz", "--files", str(files), "--record-length", size)
        assert done.code == 0, done.errors
        return self.folder / name

    def tree(self, name: str = ".") -> dict[str, str]:
        """What lies in the folder: every path, with the digest of its content."""
        found = {}
        for path in sorted((self.folder / name).rglob("*")):
            if path.is_symlink():
                found[str(path)] = f"-> {path.readlink()}"
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                found[str(path)] = "folder"
        return found

    def runs(self) -> list[Path]:
        """The folders of all runs, by time."""
        return sorted((self.folder / "stoker-results").glob("*"))
