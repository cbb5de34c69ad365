"""Before ranks are started on many hosts everything is tried, side by side, and all that is found is told together.

SSH to each host by the very command that the launcher will use; there our interpreter and package answer for
themselves; one host writes a small file into the target that all must see; then the launcher starts a trial on every
host. Nothing is installed and nothing runs as another user.
"""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

import msgspec

from stoker.bench.run.hosts.clocks import offset_of, probe
from stoker.bench.run.hosts.facts import MARK, SENTINEL, HostFacts, Request, host_facts
from stoker.bench.run.hosts.judging import Asked, Check, failed, judge_hosts
from stoker.bench.run.hosts.mpirun import SSH_SECONDS, ssh_options
from stoker.bench.run.hosts.names import Host
from stoker.bench.run.hosts.packages import install_command
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.hosts.start import Launch, heard_of
from stoker.core import seed
from stoker.core.host_series import ClockOffset

AT_ONCE_MAX: Final = 32
ANSWER_SECONDS: Final = 30.0
TRIAL_SECONDS: Final = 60.0
_LOCAL_NAMES: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_ASK: Final = "from stoker.bench.run.hosts.facts import main; main()"
_TRIAL: Final = "from stoker.bench.run.hosts.trial import main; main()"


def examine_hosts(
    hosts: Sequence[Host], target: str = "", *, write: bool = True, needed_bytes: int = 0, launch: Launch | None = None
) -> list[Check]:
    """Return the checks of all hosts and, with `launch`, of the launcher that will start the ranks there.

    With `write` one host puts a small file into `target` and removes it again, to see whether all see the same place.
    """
    seen = look_at_hosts([host.name for host in hosts], target, write=write)
    checks = judge_hosts(seen.facts, Asked(target, seen.token, needed_bytes), seen.offsets)
    if launch is not None and not any(host.error for host in seen.facts.values()):
        checks.append(try_launch(launch))
    return checks


Offsets = dict[str, ClockOffset]
Told = tuple[HostFacts, ClockOffset | None]


class HostsSeen(msgspec.Struct, frozen=True):
    """What all hosts tell, in the order in which they were named. `token` is what the shared file held, if any."""

    facts: dict[str, HostFacts]
    offsets: Offsets
    token: str = ""


def look_at_hosts(names: Sequence[str], target: str = "", *, write: bool = True) -> HostsSeen:
    """Ask all hosts over SSH; with `write` one puts a file into `target`, and removes it when all have looked."""
    token = seed.run_id() if target and write else ""
    look = Request(target=target, sentinel=SENTINEL.format(token=token) if token else "", token=token)
    facts: dict[str, HostFacts] = {}
    offsets: Offsets = {}
    try:
        _ask_first(names, msgspec.structs.replace(look, put=bool(token)), facts, offsets)
        rest = [name for name in names if name not in facts]
        for name, (told, offset) in zip(rest, _side_by_side(lambda name: ask(name, look), rest), strict=True):
            facts[name] = told
            if offset is not None:
                offsets[name] = offset
    finally:
        _remove(facts, msgspec.structs.replace(look, remove=True))
    return HostsSeen({name: facts[name] for name in names}, offsets, token)


def _ask_first(names: Sequence[str], request: Request, facts: dict[str, HostFacts], offsets: Offsets) -> None:
    """Ask hosts in turn until one answers: it is the one that writes the file."""
    for name in names:
        facts[name], offset = ask(name, request)
        if offset is not None:
            offsets[name] = offset
        if not facts[name].error:
            return


def _side_by_side(do: Callable[[str], Told], names: Sequence[str]) -> list[Told]:
    if not names:
        return []
    with ThreadPoolExecutor(min(AT_ONCE_MAX, len(names))) as pool:
        return list(pool.map(do, names))


def _remove(facts: Mapping[str, HostFacts], request: Request) -> None:
    if not request.sentinel:
        return
    writer = next((name for name, host in facts.items() if not host.error), None)
    if writer is not None:
        ask(writer, request)


def ask(name: str, request: Request) -> Told:
    """Return what a host tells of itself, and how far its clock is ahead; an error where it cannot be asked."""
    if is_here(name):
        return host_facts(request), None
    words = ["ssh", *ssh_options(), "--", name, f"{_quoted(sys.executable)} -P -c {_quoted(_ASK)}"]
    try:
        process = subprocess.Popen(  # noqa: S603 - ssh, to a host that was named
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        return HostFacts(error="no ssh on this host", remedy=install_command("ssh")), None
    timer = threading.Timer(ANSWER_SECONDS, process.kill)
    timer.start()
    errors = b""
    try:
        # Leaving the block closes the end for questions: of an ssh that has gone with one unread, that fails again.
        with suppress(BrokenPipeError), process:
            with suppress(BrokenPipeError, msgspec.DecodeError, ValueError):
                return _conversation(process, request)
            if process.stderr is not None:
                errors = process.stderr.read(1 << 16)
    finally:
        timer.cancel()
    if process.returncode == -signal.SIGKILL:
        return HostFacts(error=f"no answer within {ANSWER_SECONDS:.0f} s", remedy=f"try: ssh {name} true"), None
    return _why_not(name, process.returncode, errors.decode("utf-8", "replace")), None


def _conversation(process: subprocess.Popen[bytes], request: Request) -> Told:
    """Ask for the facts, then for the clock. Raises ValueError when the answer is none; what ssh says stands apart."""
    assert process.stdin is not None
    assert process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def say(line: bytes) -> bytes:
        questions.write(line + b"\n")
        questions.flush()
        return answers.readline(1 << 20)

    line = say(msgspec.json.encode(request))
    while line and not line.startswith(MARK):  # a greeting of that host's
        line = answers.readline(1 << 20)
    facts = msgspec.json.decode(line.removeprefix(MARK), type=HostFacts)
    return facts, offset_of(probe(lambda: int(say(b"clock"))))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _why_not(name: str, code: int, errors: str) -> HostFacts:
    """Return why a host did not tell: SSH did not reach it, or our package is not there."""
    told = " ".join(errors.split())[-300:]
    if code == 255:
        remedy = f"ssh-copy-id {name}" if "ermission denied" in errors else f"try: ssh -o BatchMode=yes {name} true"
        remedy = (
            f"ssh-keygen -R {name}, if its key was changed on purpose" if "HOST IDENTIFICATION" in errors else remedy
        )
        return HostFacts(error=f"SSH does not reach it within {SSH_SECONDS} s: {told}", remedy=remedy)
    if "No module named" in errors:
        return HostFacts(error=f"stoker is not installed there: {told}", remedy="install the same release on all hosts")
    if code in (126, 127):
        return HostFacts(error=f"no {sys.executable} there", remedy="install the same environment at the same path")
    return HostFacts(error=f"our package does not start there (exit code {code}): {told}")


def is_here(name: str) -> bool:
    """Tell whether a name is this host's own."""
    own = local_name()
    return name in _LOCAL_NAMES or name in (own, own.partition(".")[0])


def try_launch(launch: Launch) -> Check:
    """Start a rank for each slot that only says where it is, by the very command line that the run will use."""
    ended = heard_of(launch, [sys.executable, "-P", "-c", _TRIAL], seconds=TRIAL_SECONDS)
    if ended is None:
        told = f"{launch.launcher.told} did not end a trial within {TRIAL_SECONDS:.0f} s"
        return Check("launcher", "fail", told, "see whether the hosts reach each other over the network")
    return _trial_check(launch, ended.returncode, ended.stdout, ended.stderr)


def _trial_check(launch: Launch, code: int, out: str, errors: str) -> Check:
    """Hold what the trial said against what was asked for."""
    from stoker.bench.run.hosts.trial import MARK, Trial

    line = next((line for line in out.splitlines() if line.startswith(MARK)), "")
    told = launch.launcher.told
    if code or not line:
        last = " ".join((errors or out).split())[-400:]
        return Check("launcher", "fail", f"{told} started no ranks (exit code {code}): {last}", _remedy(errors))
    trial = msgspec.json.decode(line[len(MARK) :], type=Trial)
    ranks = sum(host.slots for host in launch.hosts)
    if trial.ranks != ranks:
        observed = f"{told} started {trial.ranks} ranks instead of {ranks}: its library is {trial.library}"
        return Check("launcher", "fail", observed, "let --mpi-bin name the launcher of that library")
    if trial.variables_missing:
        names = ", ".join(trial.variables_missing[:8])
        return Check("launcher", "fail", f"{told} did not pass on {names}", "see its manual and --mpi-params")
    asked = sorted(host.slots for host in launch.hosts)
    if sorted(trial.ranks_by_host.values()) != asked:
        spread = ", ".join(f"{name} {count}" for name, count in trial.ranks_by_host.items())
        return Check("launcher", "warn", f"{told} spread the ranks otherwise: {spread}", "see its --mpi-params")
    return Check("launcher", "ok", f"{told} started {ranks} ranks on {len(asked)} hosts; {trial.library}")


def _remedy(errors: str) -> str:
    if "--allow-run-as-root" in errors:
        return "give --allow-run-as-root, or start it as another user"
    if "enough slots" in errors:
        return "give --oversubscribe, or more slots: --hosts a:4"
    if "mpi4py" in errors:
        return "pip install 'stoker[mpi]' on every host"
    return "try it with --mpi-params, or start stoker with the launcher yourself"


__all__ = ("Check", "ask", "examine_hosts", "failed", "is_here", "look_at_hosts", "try_launch")
