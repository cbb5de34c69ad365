"""`stoker mlperf`: the tree of commands of MLPerf Storage 3.0, its parsers made of rows.

A word that a division does not have is not registered in that division's parser.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from stoker.cli.groups import NearestGroup
from stoker.core.errors import StokerError, UsageError
from stoker.core.options import Option
from stoker.core.registry import nearest

DIVISIONS: Final = {
    "closed": "Runs to be compared: the rules decide all but the storage.",
    "open": "Runs that change what the rules leave open.",
    "whatif": "Runs of any model and accelerator; never to be submitted.",
}
RECORDS: Final = {
    "init": "Make a results directory.",
    "reports": "Roll up what the runs of a results directory gave.",
    "history": "Command lines that were run, and running one again.",
    "runs": "Runs of a results directory: list, show, remove.",
    "lockfile": "Pin the installed packages, or hold them against a lock file.",
    "validate": "Judge a submission by the rules.",
    "rules-coverage": "Which rules have a check.",
    "version": "Versions of the tool and of the rules.",
}
FAMILIES: Final = {
    "training": "Emulate the training of a model.",
    "checkpointing": "Write and read checkpoints of a model.",
    "vectordb": "Load and query a vector database.",
    "kvcache": "Move blocks of a KV cache.",
}
COMMANDS: Final = {
    "datasize": "Tell how large what is needed has to be, and what to type next.",
    "datagen": "Make the dataset.",
    "run": "Run the workload and keep its leaf.",
    "configview": "Print the resolved configuration, each value with its origin.",
}


class Tree(NearestGroup):
    """The root: errors leave with the exit codes of the reference tool, and modules are imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names: making a place, running, then looking."""
        return ["init", *DIVISIONS, *(name for name in RECORDS if name != "init")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a division's group, or one of the commands that keep and judge records."""
        if cmd_name in DIVISIONS:
            return Division(cmd_name, help=DIVISIONS[cmd_name], context_settings=_SETTINGS)
        if cmd_name not in RECORDS:
            return None
        found: click.Command = importlib.import_module("stoker.cli.mlperf_records").COMMANDS[cmd_name]
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        told = {**RECORDS, **DIVISIONS}
        with formatter.section("Commands"):
            formatter.write_dl([(name, told[name]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> Any:
        """Invoke the command; an error of ours gets the reference tool's exit code."""
        from stoker.bench.run.mlperf.exits import exit_code_of

        try:
            return super().invoke(ctx)
        except StokerError as error:
            error.exit_code = exit_code_of(error)
            raise
        except OSError as error:
            raised = StokerError(error.strerror or str(error), where=str(error.filename or ""))
            raised.exit_code = exit_code_of(error)
            raise raised from error


class _Listed(NearestGroup):
    """A group whose commands are made when they are asked for. `elsewhere` tells of a name of other divisions."""

    def __init__(
        self, name: str, told: dict[str, str], make: Any, elsewhere: Callable[[str], str] = lambda _: "", **more: Any
    ) -> None:
        super().__init__(name, **more)
        self._told, self._make, self._elsewhere = told, make, elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(self._told)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names. Raises UsageError for one that other divisions have."""
        offered = self._elsewhere(args[0]) if args and args[0] not in self._told else ""
        if offered:
            raise UsageError(offered, remedy=f"known: {', '.join(self._told)}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of that name."""
        made: click.Command | None = self._make(cmd_name) if cmd_name in self._told else None
        return made

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without making any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._told.items()))


class Division(_Listed):
    """`closed`, `open` or `whatif`."""

    def __init__(self, name: str, **more: Any) -> None:
        super().__init__(name, FAMILIES, lambda family: _family(name, family), **more)


_SETTINGS: Final[dict[str, Any]] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


def _family(division: str, family: str) -> click.Command:
    """Return a family's group: its models and, where the model may be an option, its commands; for the KV cache, which
    has no model there, the commands alone."""
    from stoker.bench.run.mlperf.lookup import offered_in, positionals

    names = {model: f"Commands for {model}." for model in positionals(division, family)}
    if family == "kvcache":
        return _commands(division, family, "", FAMILIES[family])
    if family == "checkpointing":
        names |= {command: f"{COMMANDS[command]} Needs --model." for command in _commands_of(family)}

    def make(name: str) -> click.Command:
        if name in _commands_of(family):
            return leaf_command(division, family, "", name)
        return _commands(division, family, name, f"{FAMILIES[family][:-1]}: {name}.")

    return _Listed(
        family,
        names,
        make,
        lambda name: _refusal(division, name, offered_in(family, name)),
        help=FAMILIES[family],
        context_settings=_SETTINGS,
    )


def _refusal(division: str, name: str, offered: str) -> str:
    return f"{name} is offered in {offered}, not in {division}" if offered else ""


def _commands_of(family: str) -> tuple[str, ...]:
    from stoker.bench.run.mlperf.rows import COMMANDS as KNOWN

    return KNOWN[family]


def _commands(division: str, family: str, model: str, told: str) -> click.Command:
    names = {command: COMMANDS[command] for command in _commands_of(family)}
    return _Listed(
        model or family,
        names,
        lambda command: leaf_command(division, family, model, command),
        help=told,
        context_settings=_SETTINGS,
    )


class ManyWords(click.Command):
    """A command some of whose options take all words up to the next option: `--hosts a b c`.

    `elsewhere` tells of an option that this command lacks where it exists.
    """

    def __init__(
        self, *arguments: Any, many: Sequence[str], elsewhere: Callable[[str], str] = lambda _: "", **more: Any
    ) -> None:
        super().__init__(*arguments, **more)
        self._many = tuple(many)
        self._elsewhere = elsewhere

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse after each of such words got its option's name."""
        self._refuse_unknown(ctx, args)
        return super().parse_args(ctx, spelled_out(args, self._many))

    def _refuse_unknown(self, ctx: click.Context, args: Sequence[str]) -> None:
        """Raise UsageError for a word that looks like an option and is none here: `-aip` is one word, not three."""
        options = [each for each in self.get_params(ctx) if isinstance(each, click.Option)]
        names = {name: each for each in options for name in each.opts}
        waiting = iter(args)
        for word in waiting:
            name, equals, _ = word.partition("=")
            if name in names:
                if not (equals or names[name].is_flag or name in self._many):
                    next(waiting, None)  # its value, whatever it looks like
            elif name.startswith("-") and name.strip("-"):
                close = nearest(name, list(names))
                hint = self._elsewhere(name) or (
                    f"did you mean {close}?" if close else f"see {ctx.command_path} --help"
                )
                raise UsageError("no such option here", where=name, remedy=hint)


def spelled_out(args: Sequence[str], many: Sequence[str]) -> list[str]:
    """Return the words with the option's name before each of the words it takes: `-p a=1 b=2` is `-p a=1 -p b=2`."""
    told: list[str] = []
    current, wants = "", False
    for word in args:
        name = word.partition("=")[0]
        if word.startswith("-") and word != "-":
            if wants:
                break
            current = name if name in many else ""
            wants = bool(current) and "=" not in word
            if not wants:
                told.append(word)
        elif current:
            told += [current, word]
            wants = False
        else:
            told.append(word)
    if wants:
        raise UsageError(f"{current} needs a value")
    return told


def command_at(arguments: Sequence[str]) -> tuple[tuple[str, str, str, str], click.Context]:
    """Return division, family, model (may be empty) and command of a command line behind `mlperf`, and its parsed
    options; nothing is run. Raises UsageError where it names no command of a division."""
    found: click.Command = command
    chosen: list[str] = []
    for at, word in enumerate(arguments):
        if not isinstance(found, click.Group):
            break
        inner = found.get_command(click.Context(found), word)
        if inner is None or (not chosen and word not in DIVISIONS):
            break
        found, chosen = inner, [*chosen, word]
        if isinstance(inner, ManyWords):
            division, family, *model, name = chosen
            context = inner.make_context(" ".join(chosen), list(arguments[at + 1 :]))
            return (division, family, model[0] if model else "", name), context
    expected = "closed training unet3d run file, say"
    raise UsageError(
        "no command of a division", where=" ".join([*chosen, *arguments[len(chosen) :][:1]]), expected=expected
    )


def leaf_command(division: str, family: str, model: str, command: str) -> click.Command:
    """Return the parser of one command."""
    from stoker.bench.run.mlperf.families import ROWS
    from stoker.bench.run.mlperf.lookup import options_of, positionals
    from stoker.bench.run.mlperf.rows import ACCESSES, TAKES_ACCESS

    label = model or next(iter(positionals(division, family)), "")
    options = options_of(division, family, label, command)
    parameters: list[click.Parameter] = []
    if command in TAKES_ACCESS[family]:
        parameters.append(
            click.Argument(["access"], required=False, type=click.Choice(ACCESSES), metavar="file|object")
        )
    if not model and family == "checkpointing":
        choice = click.Choice(positionals(division, family))
        parameters.append(click.Option(["--model", "-m", "model_name"], type=choice, required=True, help="Model."))
    parameters += [_option(option) for option in options]
    many = [name for option in options if option.metavar.endswith("...") for name in (option.flag, *option.spellings)]

    def elsewhere(name: str) -> str:
        found = [row for row in ROWS[family] if name in (row.option.flag, *row.option.spellings)]
        commands = dict.fromkeys(f"{where} {each}" for row in found for where in row.divisions for each in row.commands)
        return f"it is an option of {', '.join(commands)}" if commands else ""

    def run(access: str | None = None, model_name: str = "", **given: Any) -> int:
        from stoker.bench.run.mlperf.resolving import Place
        from stoker.cli.mlperf_run import perform

        return perform(Place(division, family, model or model_name, command, access or ""), given)

    return ManyWords(
        command,
        params=parameters,
        callback=run,
        help=COMMANDS[command],
        many=many,
        elsewhere=elsewhere,
        context_settings=_SETTINGS,
    )


def _option(option: Option) -> click.Option:
    told = option.help
    if option.variable:
        told += f"  [env: {option.variable}]"
    if option.default is not None and option.kind != "flag":
        shown = ",".join(option.default) if isinstance(option.default, list) else option.default
        told += f"  [default: {shown}]"
    names = [option.flag, *option.spellings, option.name]
    if option.kind == "flag":
        return click.Option(names, is_flag=True, default=None, help=told)
    metavar = option.metavar.removesuffix("...") or (
        "|".join(option.choices) if option.choices else option.kind.upper()
    )
    return click.Option(names, default=None, multiple=option.many, metavar=metavar, help=told)


@click.command("mlperf", cls=Tree, context_settings=_SETTINGS)
def command() -> None:
    """Run MLPerf Storage 3.0: the reference tool's tree of commands, options, results and exit codes.

    A script of its users runs when the program's name is replaced. Exit codes: 0 good, 1 general, 2 wrong use, 3 not
    found, 4 not permitted, 5 configuration, 6 failed, 7 timed out, 8 interrupted.
    """
