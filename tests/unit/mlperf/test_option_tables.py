"""Every option of the published command line exists exactly where it is said to, under every spelling and default."""

from itertools import product
from typing import Any

import click
import pytest

from stoker.bench.rules.mlperf.tables import models, overrides, training_models
from stoker.bench.run.mlperf.families import ROWS
from stoker.bench.run.mlperf.lookup import accelerators, indexes, options_of, positionals, rows_of
from stoker.cli.mlperf import command as mlperf
from stoker.core.options import Option

CLOSED, OPEN, WHATIF = DIVISIONS = ("closed", "open", "whatif")
COMMANDS = {
    "training": ("datasize", "datagen", "run", "configview"),
    "checkpointing": ("datasize", "run", "configview"),
    "vectordb": ("datasize", "datagen", "run"),
    "kvcache": ("datasize", "run", "configview"),
}
ALL = "datasize datagen run configview"
EVERY = "closed open whatif"
LOOSE = "open whatif"

# spellings | kind | default | variable | commands | divisions
UNIVERSAL = f"""
--results-dir -rd | text | - | MLPSTORAGE_RESULTS_DIR | {ALL} | {EVERY}
--systemname -sn | text | - | MLPSTORAGE_SYSTEMNAME | {ALL} | {EVERY}
--config-file -c | text | - | - | {ALL} | {EVERY}
--debug | flag | off | MLPS_DEBUG | {ALL} | {EVERY}
--verbose | flag | off | - | {ALL} | {EVERY}
--quiet | flag | off | - | {ALL} | {EVERY}
--stream-log-level | text | INFO | - | {ALL} | {EVERY}
--color | text | auto | - | {ALL} | {EVERY}
--dry-run --what-if | flag | off | - | {ALL} | {EVERY}
--verify-lockfile | text | - | - | {ALL} | {EVERY}
--skip-validation | flag | off | - | {ALL} | {EVERY}
--skip-fs-separation-gate | flag | off | - | {ALL} | {EVERY}
"""
MPI = f"""
--mpi-bin | text | mpirun | - | {ALL} | {EVERY}
--oversubscribe | flag | off | - | {ALL} | {EVERY}
--allow-run-as-root | flag | off | - | {ALL} | {EVERY}
--mpi-btl | text | auto | - | {ALL} | {EVERY}
--mpi-params | text | - | - | {ALL} | {EVERY}
"""
SERIES = f"""
--timeseries-interval | float | 10.0 | - | run | {LOOSE}
--skip-timeseries | flag | off | - | run | {LOOSE}
--max-timeseries-samples | int | 3600 | - | run | {LOOSE}
"""
TRAINING = f"""
--hosts -s | text | 127.0.0.1 | - | {ALL} | {EVERY}
--client-host-memory-in-gb -cm | float | - | - | datasize run configview | {EVERY}
--max-accelerators -ma | int | - | - | datasize | {EVERY}
--num-processes -np | int | - | - | datagen | {EVERY}
--num-accelerators -na | int | - | - | run configview | {EVERY}
--accelerator-type -at | text | - | - | datasize run configview | {EVERY}
--num-client-hosts -nc | int | - | - | datasize run configview | {EVERY}
--exec-type -et | text | mpi | - | {ALL} | {EVERY}
--data-dir -dd | text | - | MLPSTORAGE_DATA_DIR | {ALL} | {EVERY}
--dlio-bin-path -dp | text | - | - | {ALL} | {EVERY}
--params --param -p | text | - | - | {ALL} | {EVERY}
--o-direct | flag | off | - | datagen run configview | {EVERY}
--drop-caches-timeout-seconds | int | - | - | run | {EVERY}
--loops | int | 1 | - | {ALL} | {LOOSE}
--allow-invalid-params -aip | flag | off | - | {ALL} | {LOOSE}
"""
CHECKPOINTING = f"""
--hosts -s | text | 127.0.0.1 | - | {ALL} | {EVERY}
--client-host-memory-in-gb -cm | float | - | - | {ALL} | {EVERY}
--num-processes -np | int | - | - | {ALL} | {EVERY}
--num-checkpoints-read -ncr | int | 10 | - | {ALL} | {EVERY}
--num-checkpoints-write -ncw | int | 10 | - | {ALL} | {EVERY}
--checkpoint-folder -cf | text | - | MLPSTORAGE_CHECKPOINT_FOLDER | {ALL} | {EVERY}
--accelerator-type -at | text | - | - | run configview | {EVERY}
--checkpoint-subset | flag | off | - | {ALL} | {EVERY}
--o-direct | flag | off | - | run configview | {EVERY}
--exec-type -et | text | mpi | - | {ALL} | {EVERY}
--dlio-bin-path -dp | text | - | - | {ALL} | {EVERY}
--loops | int | 1 | - | {ALL} | {LOOSE}
--params --param -p | text | - | - | {ALL} | {LOOSE}
--allow-invalid-params -aip | flag | off | - | {ALL} | {LOOSE}
"""
VECTORDB = f"""
--vdb-engine | text | milvus | - | {ALL} | {EVERY}
--host | text | 127.0.0.1 | - | {ALL} | {EVERY}
--port | int | 19530 | - | {ALL} | {EVERY}
--config | text | - | - | {ALL} | {EVERY}
--collection | text | - | - | {ALL} | {EVERY}
--storage-root | text | - | - | {ALL} | {EVERY}
--storage-type | text | - | - | {ALL} | {EVERY}
--dimension | int | 1536 | - | datasize datagen | {EVERY}
--num-vectors | int | 1000000 | - | datasize datagen | {EVERY}
--num-shards | int | 1 | - | datasize datagen | {EVERY}
--vector-dtype | text | FLOAT_VECTOR | - | datasize datagen | {EVERY}
--distribution | text | uniform | - | datagen | {EVERY}
--batch-size | int | 1000 | - | datagen | {EVERY}
--chunk-size | int | 10000 | - | datagen | {EVERY}
--force | flag | off | - | datagen | {EVERY}
--metric-type | text | COSINE | - | datagen | {EVERY}
--max-degree | int | 64 | - | datagen | {EVERY}
--search-list-size | int | 200 | - | datagen | {EVERY}
--M | int | 64 | - | datagen | {EVERY}
--ef-construction | int | 200 | - | datagen | {EVERY}
--inline-pq | int | 16 | - | datagen | {EVERY}
--monitor-interval | float | 5 | - | datagen | {EVERY}
--compact | flag | off | - | datagen | {EVERY}
--num-query-processes | int | 1 | - | run | {EVERY}
--batch-size | int | 1 | - | run | {EVERY}
--report-count | int | 100 | - | run | {EVERY}
--benchmark-mode | text | timed | - | run | {EVERY}
--vector-dim | int | 1536 | - | run | {EVERY}
--search-limit | int | 10 | - | run | {EVERY}
--search-ef | int | 200 | - | run | {EVERY}
--gt-collection | text | - | - | run | {EVERY}
--num-query-vectors | int | 1000 | - | run | {EVERY}
--recall-k | int | - | - | run | {EVERY}
--runtime | float | - | - | run | {EVERY}
--queries | int | - | - | run | {EVERY}
--distributed | flag | off | - | datagen run | {EVERY}
--hosts | text | - | - | datagen run | {EVERY}
--npernode | int | 1 | - | datagen run | {EVERY}
--mpi-impl | text | mpich | - | datagen run | {EVERY}
--coordination | text | filesystem | - | datagen run | {EVERY}
--rank-output-dir | text | - | - | datagen run | {EVERY}
--seed | int | 42 | - | datagen run | {EVERY}
--ready-timeout | float | 7200 | - | datagen run | {EVERY}
--mpi-bin | text | mpiexec | - | datagen run | {EVERY}
"""
KVCACHE = f"""
--cache-dir | text | - | - | {ALL} | {EVERY}
--hosts -s | text | 127.0.0.1 | - | {ALL} | {EVERY}
--npernode | int | - | - | {ALL} | {EVERY}
--num-processes -np | int | - | - | {ALL} | {EVERY}
--exec-type -et | text | mpi | - | {ALL} | {EVERY}
--kvcache-bin-path | text | - | - | {ALL} | {EVERY}
--model -m | text | tiny-1b | - | {ALL} | {LOOSE}
--num-users | int | 100 | - | {ALL} | {LOOSE}
--duration | int | 60 | - | {ALL} | {LOOSE}
--gpu-mem-gb | float | 16 | - | {ALL} | {LOOSE}
--cpu-mem-gb | float | 32 | - | {ALL} | {LOOSE}
--generation-mode | text | realistic | - | {ALL} | {LOOSE}
--performance-profile | text | latency | - | {ALL} | {LOOSE}
--disable-multi-turn | flag | off | - | {ALL} | {LOOSE}
--disable-prefix-caching | flag | off | - | {ALL} | {LOOSE}
--enable-rag | flag | off | - | {ALL} | {LOOSE}
--rag-num-docs | int | 10 | - | {ALL} | {LOOSE}
--enable-autoscaling | flag | off | - | {ALL} | {LOOSE}
--autoscaler-mode | text | qos | - | {ALL} | {LOOSE}
--use-burst-trace | flag | off | - | {ALL} | {LOOSE}
--burst-trace-path | text | - | - | {ALL} | {LOOSE}
--dataset-path | text | - | - | {ALL} | {LOOSE}
--io-trace-log | text | - | - | {ALL} | {LOOSE}
--config | text | - | - | {ALL} | {LOOSE}
--max-concurrent-allocs | int | 0 | - | {ALL} | {LOOSE}
--enable-latency-tracing | flag | off | - | {ALL} | {LOOSE}
--seed | int | 42 | - | {ALL} | {LOOSE}
--trials | int | 3 | - | {ALL} | {LOOSE}
--inter-option-delay | float | 90 | - | {ALL} | {LOOSE}
"""
SHEET = {
    "training": UNIVERSAL + MPI + TRAINING + SERIES,
    "checkpointing": UNIVERSAL + MPI + CHECKPOINTING + SERIES,
    "vectordb": UNIVERSAL + VECTORDB,
    "kvcache": UNIVERSAL + MPI + KVCACHE + SERIES,
}
PLACES = [(family, command, division) for family in SHEET for command, division in product(COMMANDS[family], DIVISIONS)]


def expected(family: str, command: str, division: str) -> dict[str, tuple[tuple[str, ...], str, str, str]]:
    """What the sheet says of one parser: by long spelling all spellings, kind, default and variable."""
    found = {}
    for line in filter(None, SHEET[family].splitlines()):
        spellings, kind, default, variable, commands, divisions = (cell.strip() for cell in line.split("|"))
        if command in commands.split() and division in divisions.split():
            names = tuple(spellings.split())
            found[names[0]] = (names, kind, default, variable)
    return found


def parser_of(*words: str) -> click.Command:
    """The click command behind the words."""
    found: click.Command = mlperf
    for word in words:
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), word)
        assert inner is not None
        found = inner
    return found


def default_text(option: Option) -> str:
    if option.kind == "flag":
        return "off" if option.default is False else "on"
    value: Any = option.default
    return "-" if value is None else ",".join(value) if isinstance(value, list) else str(value)


def words_of(family: str, command: str, division: str) -> list[str]:
    model = next(iter(positionals(division, family)), "")
    return [word for word in (division, family, model, command) if word]


@pytest.mark.parametrize(("family", "command", "division"), PLACES)
def test_options_exist_exactly_where_the_sheet_says(family: str, command: str, division: str) -> None:
    model = next(iter(positionals(division, family)), "")
    sheet = expected(family, command, division)
    found = {}
    for option in options_of(division, family, model, command):
        # `--M` is a capital letter on the command line alone
        names = option.spellings if option.name == "m" else (option.flag, *option.spellings)
        found[names[0]] = (names, option.kind, default_text(option), option.variable or "-")
    assert found == sheet


@pytest.mark.parametrize(("family", "command", "division"), PLACES)
def test_the_parser_takes_every_spelling_and_no_more(family: str, command: str, division: str) -> None:
    parser = parser_of(*words_of(family, command, division))
    taken = {name for parameter in parser.params if isinstance(parameter, click.Option) for name in parameter.opts}
    told = {name for names, *_ in expected(family, command, division).values() for name in names}
    assert taken - {"--m"} == told


def test_models_accelerators_and_indexes_of_the_divisions() -> None:
    assert positionals(CLOSED, "training") == positionals(OPEN, "training") == ("unet3d", "retinanet")
    assert set(positionals(WHATIF, "training")) == {"unet3d", "retinanet", "cosmoflow", "resnet50", "dlrm", "flux"}
    for division in DIVISIONS:
        assert positionals(division, "checkpointing") == ("llama3-8b", "llama3-70b", "llama3-405b", "llama3-1t")
        for model, kinds in training_models("3.0", division).items():
            assert accelerators(division, "training", model) == kinds
    assert set(accelerators(CLOSED, "training", "unet3d")) == {"b200"}
    assert set(accelerators(WHATIF, "training", "unet3d")) == {"b200", "h100", "a100"}
    assert set(accelerators(CLOSED, "checkpointing", "llama3-8b")) == {"b200", "mi355"}
    assert set(accelerators(WHATIF, "checkpointing", "llama3-8b")) == {"b200", "mi355", "h100", "a100"}
    assert indexes(CLOSED) == ("DISKANN", "HNSW", "AISAQ")
    assert indexes(OPEN) == indexes(WHATIF) == ("DISKANN", "HNSW", "AISAQ", "IVF_FLAT", "IVF_SQ8", "FLAT")


def test_kv_models_are_those_of_the_rules_and_only_where_a_model_may_be_chosen() -> None:
    rows = {row.option.name: row for row in ROWS["kvcache"]}
    assert rows["model"].divisions == (OPEN, WHATIF)
    option = next(each for each in options_of(OPEN, "kvcache", "", "run") if each.name == "model")
    assert option.choices == models().kv_cache.models


def test_what_the_rules_lock_in_closed_kv_runs_is_no_option_there() -> None:
    table = overrides().kv_cache
    closed = {row.option.name for row in rows_of(CLOSED, "kvcache", "run")}
    loose = {row.option.name for row in rows_of(OPEN, "kvcache", "run")}
    for each in table.closed:
        assert each.key in closed, each.key
    for each in table.open:
        assert each.key not in closed, each.key
        assert each.key in loose or each.key == "option", each.key


def test_direct_reads_are_no_option_of_object_stores() -> None:
    for family, command in (("training", "run"), ("training", "datagen"), ("checkpointing", "run")):
        model = positionals(CLOSED, family)[0]
        for access, there in (("file", True), ("object", False)):
            names = [option.name for option in options_of(CLOSED, family, model, command, access)]
            assert ("o_direct" in names) is there


@pytest.mark.parametrize(
    ("words", "model"),
    [(("closed", "training"), "cosmoflow"), (("open", "training"), "dlrm"), (("closed", "vectordb"), "FLAT")],
)
def test_a_model_that_a_division_lacks_is_no_command_there(words: tuple[str, ...], model: str) -> None:
    group = parser_of(*words)
    assert isinstance(group, click.Group)
    assert group.get_command(click.Context(group), model) is None
