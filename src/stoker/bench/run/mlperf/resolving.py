"""From what was typed, the environment and a file to the settings of one command, each with its origin.

Precedence is the one rule of `core.options`: flag > environment > file > default. `--params` follows it key by key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from stoker.bench.rules.mlperf.tables import CLOSED, override_breach
from stoker.bench.run.dlio.tree import Leaf, Node, leaves
from stoker.bench.run.dlio.yaml_text import load_file
from stoker.bench.run.hosts.names import Host, parse_hosts
from stoker.bench.run.mlperf.cache_layout import CacheLayout, cache_layout
from stoker.bench.run.mlperf.lookup import accelerator_offered_in, accelerators, needed, options_of, rows_of
from stoker.bench.run.mlperf.rows import CHECKPOINTING, KVCACHE, RULES_FAMILY, TAKES_ACCESS, VECTORDB
from stoker.bench.run.mlperf.vector_configs import preset_of
from stoker.core.errors import UsageError
from stoker.core.options import Candidate, Option, Setting, candidates, refuse_unknown, settled

PARAMS: Final = "params"
_LOCAL: Final = frozenset(("localhost", "127.0.0.1", "::1"))


@dataclass(frozen=True)
class Place:
    """Which command: division, family, model (or index), command and access (empty where there is none)."""

    division: str
    family: str
    model: str
    command: str
    access: str = ""

    @property
    def rules_family(self) -> str:
        """Return the family as the rules and the folders of a tree name it."""
        return RULES_FAMILY[self.family]

    @property
    def words(self) -> list[str]:
        """Return the words that choose the command."""
        return [word for word in (self.division, self.family, self.model, self.command, self.access) if word]


@dataclass(frozen=True)
class Invocation:
    """One command line, resolved. `found` are all candidates of each option, `params` those of each overridden key."""

    place: Place
    settings: Mapping[str, Setting]
    found: Mapping[str, tuple[Candidate, ...]]
    params: Mapping[str, tuple[Candidate, ...]]

    def value(self, name: str) -> Any:
        """Return an option's value, None where the command has no such option."""
        setting = self.settings.get(name)
        return setting.value if setting is not None else None

    def given(self, name: str) -> bool:
        """Tell whether somebody gave the option a value."""
        return name in self.settings and self.settings[name].origin != "default"

    @property
    def overrides(self) -> dict[str, str]:
        """Return the overridden keys with the winning texts."""
        return {key: str(found[0].value) for key, found in self.params.items()}

    @property
    def hosts(self) -> tuple[Host, ...]:
        """Return the hosts as named; this one when none was."""
        return parse_hosts(self.value("hosts") or ["127.0.0.1"])

    @property
    def host_count(self) -> int:
        """Return the number of clients: as told, else as listed."""
        return int(self.value("num_client_hosts") or len(self.hosts))

    @property
    def ranks(self) -> int:
        """Return the accelerators or processes asked for, 0 where the command has none."""
        if self.place.family == VECTORDB:
            clients = len(self.hosts) * int(self.value("npernode") or 1) if self.value("distributed") else 1
            return clients * int(self.value("num_query_processes") or 1)
        if self.place.family == KVCACHE:
            return self.cache_layout.ranks
        names = ("num_accelerators", "num_processes", "max_accelerators")
        return next((int(told) for name in names if (told := self.value(name))), 0)

    @property
    def cache_layout(self) -> CacheLayout:
        """Return how the clients of a KV cache spread over the hosts. Raises UsageError where they do not."""
        return cache_layout(len(self.hosts), self.value("num_processes"), self.value("npernode"))

    @property
    def here_only(self) -> bool:
        """Tell whether this host is the only one that was named."""
        return all(host.name in _LOCAL for host in self.hosts)

    @property
    def over_mpi(self) -> bool:
        """Tell whether a launcher starts the ranks: on other hosts, or because an option of the launcher was given."""
        if self.place.family == VECTORDB:
            return bool(self.value("distributed"))
        return not self.here_only or any(self.given(name) for name in ("mpi_bin", "mpi_btl", "mpi_params"))

    @property
    def arguments(self) -> dict[str, Any]:
        """Return the effective arguments by name, as the metadata of a leaf keep them."""
        place = self.place
        told = {name: setting.value for name, setting in self.settings.items() if name != PARAMS}
        told |= {
            "mode": place.division,
            "model": place.model or told.get("model"),
            "command": place.command,
            "benchmark": place.family,
        }
        if place.access:
            told["data_access_protocol"] = place.access
        told[PARAMS] = [f"{key}={value}" for key, value in self.overrides.items()] or None
        if "hosts" in told:
            told["hosts"] = [host.name + (f":{host.slots}" if host.slots else "") for host in self.hosts]
        if "num_client_hosts" in told:
            told["num_client_hosts"] = self.host_count
        return told


def resolve_invocation(
    place: Place, flags: Mapping[str, Any], environment: Mapping[str, str], *, strict: bool = True
) -> Invocation:
    """Return the command with every option settled.

    Raises UsageError for a bad value, an unknown key of the file, a needed option that nobody gave (unless not
    `strict`), and what the division does not allow.
    """
    options = options_of(place.division, place.family, place.model, place.command, place.access)
    _refuse_absent(options, flags, place)
    known = {name: text for name, text in environment.items() if text}
    chosen = next((option for option in options if option.name == "config_file"), None)
    assert chosen is not None
    file, places = _file(settled(chosen, candidates([chosen], flags=flags, environment=known)[chosen.name]).value)
    refuse_unknown(file, [option.name for option in options])
    plain_file = _without_params(file)
    preset = _preset(place, options, flags.get("config") or plain_file.get("config"))
    found = candidates(options, flags=flags, file=plain_file, preset=preset, environment=known, places=places)
    params = _params(flags.get(PARAMS) or (), file.get(PARAMS))
    _refuse_accelerator(found, place)
    settings = {option.name: _setting(option, found[option.name]) for option in options}
    invocation = Invocation(place, settings, found, params)
    if strict:
        _require(invocation)
        _check(invocation)
    return invocation


def _preset(place: Place, options: Sequence[Option], name: Any) -> dict[str, Any]:
    """Return what a shipped configuration of the vector database sets; nothing for the other families."""
    if place.family != VECTORDB or not name:
        return {}
    return preset_of(str(name), place.model, [option.name for option in options])


def _refuse_absent(options: Sequence[Option], flags: Mapping[str, Any], place: Place) -> None:
    """Raise UsageError for an option that is not there with this access: parsers come to know that word too late."""
    known = [option.name for option in options]
    for name, value in flags.items():
        if value not in (None, ()) and name not in known:
            raise UsageError(f"--{name.replace('_', '-')} does not go with {place.access}", remedy="leave it out")


def _refuse_accelerator(found: Mapping[str, Sequence[Candidate]], place: Place) -> None:
    """Raise UsageError, with the divisions that have it, for an accelerator that this one has not."""
    winner = next(iter(found.get("accelerator_type", ())), None)
    if winner is None or winner.value in (known := accelerators(place.division, place.family, place.model)):
        return
    offered = accelerator_offered_in(place.family, place.model, str(winner.value))
    if offered:
        told = f"--accelerator-type: {winner.value} is offered in {offered}, not in {place.division}"
        raise UsageError(told, remedy=f"known: {', '.join(known)}")


def _without_params(file: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name != PARAMS}


def _setting(option: Option, found: Sequence[Candidate]) -> Setting:
    """Return the winner, told with its origin when it is bad."""
    try:
        return settled(option, found)
    except UsageError as error:
        where = f" ({found[0].where})" if found[0].origin in ("env", "file") else ""
        raise UsageError(
            f"{error.what}{where}", where=error.where, expected=error.expected, got=error.got, remedy=error.remedy
        ) from error


def _file(name: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of a configuration file by option, and where each stands."""
    if not name:
        return {}, {}
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, node in load_file(Path(name)).items():
        option = key.replace("-", "_")
        if option == PARAMS:
            values[option] = _params_of(node)
            places |= {f"{PARAMS}.{path}": where for path, (_, where) in values[option].items()}
            continue
        if isinstance(node, dict):
            raise UsageError("configuration file: a value is needed", where=key, expected=f"{key}: VALUE")
        if node.value is not None:
            values[option], places[option] = node.value, node.origin.where
    return values, places


def _params_of(node: Node) -> dict[str, tuple[Any, str]]:
    """Return what `params:` says, as a mapping, nested or dotted, or as a list of texts `key=value`."""
    if isinstance(node, dict):
        return {".".join(path): (leaf.value, leaf.origin.where) for path, leaf in leaves(node)}
    assert isinstance(node, Leaf)
    listed = node.value if isinstance(node.value, list) else [] if node.value is None else [node.value]
    return {key: (value, node.origin.where) for key, value in map(split_param, listed)}


def split_param(word: Any) -> tuple[str, str]:
    """Return key and value of `KEY=VALUE`. Raises UsageError for anything else."""
    key, equals, value = str(word).partition("=")
    key = key.strip().lstrip("+").removeprefix("workload.")
    if not equals or not key or not value:
        raise UsageError("--params: not understood", where=str(word), expected="KEY=VALUE, reader.read_threads=8 say")
    return key, value.strip()


def _params(flags: Sequence[str], file: Any) -> dict[str, tuple[Candidate, ...]]:
    found: dict[str, list[Candidate]] = {}
    typed = dict(split_param(word) for word in flags)
    for key, value in typed.items():
        found.setdefault(key, []).append(Candidate(value, "flag", "--params"))
    for key, (value, where) in (file or {}).items():
        found.setdefault(key, []).append(Candidate(value, "file", where))
    return {key: tuple(each) for key, each in found.items()}


def _require(invocation: Invocation) -> None:
    place = invocation.place
    for row in rows_of(place.division, place.family, place.command, place.access):
        option = row.option
        if invocation.value(option.name) is None and needed(place.family, row, place.command):
            short = f" ({option.spellings[0]})" if option.spellings else ""
            also = f" or set {option.variable}" if option.variable else ""
            raise UsageError(f"E201: {option.flag}{short} is missing", remedy=f"give it{also}; {option.help}")
    if place.command in TAKES_ACCESS[place.family] and not place.access:
        told = " ".join(place.words)
        raise UsageError(
            f"how the data are reached is missing behind {place.command!r}", expected=f"{told} file|object"
        )


def _check(invocation: Invocation) -> None:
    """Raise UsageError for what parsers cannot express."""
    if invocation.value("exec_type") == "docker":
        remedy = "start stoker itself in the container"
        raise UsageError("--exec-type docker starts no ranks here", expected="mpi", remedy=remedy)
    if invocation.value("mpi_btl") not in (None, "auto") and len(invocation.hosts) > 1:
        raise UsageError("--mpi-btl is for a single host", got=f"{len(invocation.hosts)} hosts", remedy="leave it out")
    told = invocation.value("num_client_hosts")
    if told and invocation.given("hosts") and told != len(invocation.hosts):
        raise UsageError(
            "--num-client-hosts and --hosts disagree",
            expected=f"{len(invocation.hosts)}, as --hosts lists",
            got=str(told),
        )
    if invocation.place.family == CHECKPOINTING:
        _check_counts(invocation)
    if invocation.place.family == KVCACHE:
        _check_cache(invocation)


def _check_cache(invocation: Invocation) -> None:
    """Raise UsageError for clients that do not spread over the hosts, and for what has no effect here."""
    assert invocation.cache_layout
    if invocation.value("config"):
        remedy = "every value has an option: --model, --num-users, --cpu-mem-gb …"
        raise UsageError("--config of the reference's engine is not read here", remedy=remedy)
    told = invocation.value("cache_dir")
    if told and "://" in told:
        remedy = "mount the storage and name the mount; stoker run kvcache takes addresses"
        raise UsageError("--cache-dir is no folder", expected="a path", remedy=remedy)


def _check_counts(invocation: Invocation) -> None:
    place = invocation.place
    counts = {name: invocation.value(f"num_checkpoints_{name}") for name in ("write", "read")}
    if place.division == CLOSED:
        for name, count in counts.items():
            key = f"checkpoint.num_checkpoints_{name}"
            breach = override_breach(place.rules_family, CLOSED, place.model, key, count)
            if breach:
                raise UsageError(f"--num-checkpoints-{name}: {breach} in closed", got=str(count))
    if not any(counts.values()):
        raise UsageError("neither a checkpoint to write nor one to read", remedy="give -ncw or -ncr a number")
