"""The options of `stoker mlperf` as data, a row each: those of all commands, of MPI, of training and checkpointing.

A row says for which family, commands, divisions and access it exists; where it does not exist, no parser knows it. What
the rules limit (models, accelerators, indexes, counts) stands in the tables of the rules and is only referred to here.
"""

from typing import Any, Final

import msgspec

from stoker.core.host_series import SAMPLES_MAX
from stoker.core.options import Option

CLOSED, OPEN, WHATIF = DIVISIONS = ("closed", "open", "whatif")
LOOSE: Final = (OPEN, WHATIF)
FILE, OBJECT = ACCESSES = ("file", "object")
TRAINING, CHECKPOINTING, VECTORDB, KVCACHE = FAMILIES = ("training", "checkpointing", "vectordb", "kvcache")
RULES_FAMILY: Final = {
    TRAINING: "training",
    CHECKPOINTING: "checkpointing",
    VECTORDB: "vector_database",
    KVCACHE: "kv_cache",
}
"""The families as the rules and the folders of a tree name them."""
COMMANDS: Final = {
    TRAINING: ("datasize", "datagen", "run", "configview"),
    CHECKPOINTING: ("datasize", "run", "configview"),
    VECTORDB: ("datasize", "datagen", "run"),
    KVCACHE: ("datasize", "run", "configview"),
}
TAKES_ACCESS: Final = {
    TRAINING: ("datagen", "run", "configview"),
    CHECKPOINTING: ("run", "configview"),
    VECTORDB: ("datagen", "run"),
    KVCACHE: (),
}
"""The commands after which `file` or `object` stands."""
EVERY: Final = ("datasize", "datagen", "run", "configview")


class Row(msgspec.Struct, frozen=True):
    """An option and where it exists. `needed` names the commands that do not go without it.

    `limit` names what of the rules bounds its values: accelerator, index, kv_model, counts; empty: nothing.
    """

    option: Option
    commands: tuple[str, ...] = EVERY
    divisions: tuple[str, ...] = DIVISIONS
    access: tuple[str, ...] = ACCESSES
    needed: tuple[str, ...] = ()
    limit: str = ""

    def exists(self, division: str, command: str, access: str = "") -> bool:
        """Tell whether the option exists there; a command without access has all of its options."""
        there = division in self.divisions and command in self.commands
        return there and (not access or access in self.access)


def text(name: str, told: str, *spellings: str, **more: Any) -> Option:
    """Return an option that takes a text and has no variable unless one is told."""
    return _option(name, "text", told, spellings, more)


def whole(name: str, told: str, *spellings: str, **more: Any) -> Option:
    """Return an option that takes a whole number."""
    return _option(name, "int", told, spellings, more)


def number(name: str, told: str, *spellings: str, **more: Any) -> Option:
    """Return an option that takes a number."""
    return _option(name, "float", told, spellings, more)


def flag(name: str, told: str, *spellings: str, **more: Any) -> Option:
    """Return an option that is either given or not."""
    return _option(name, "flag", told, spellings, {"default": False, **more})


def _option(name: str, kind: str, told: str, spellings: tuple[str, ...], more: dict[str, Any]) -> Option:
    return Option(name, kind, told, spellings=spellings, **{"environment": "", **more})


UNIVERSAL: Final = (
    Row(text("results_dir", "Results folder, made by `init`.", "-rd", environment="MLPSTORAGE_RESULTS_DIR")),
    Row(
        text(
            "systemname", "System under test, as its description names it.", "-sn", environment="MLPSTORAGE_SYSTEMNAME"
        ),
        needed=("datagen", "run", "configview"),
    ),
    Row(text("config_file", "YAML file with values for these options; flags and environment win over it.", "-c")),
    Row(flag("debug", "Tell everything, with origins.", environment="MLPS_DEBUG")),
    Row(flag("verbose", "Tell more.")),
    Row(flag("quiet", "Leave out the table of the configuration.")),
    Row(
        text(
            "stream_log_level",
            "Least level of what is told on the terminal.",
            default="INFO",
            choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        )
    ),
    Row(text("color", "When to colour the level tags.", default="auto", choices=("auto", "always", "never"))),
    Row(flag("dry_run", "Resolve and print everything, run nothing.", "--what-if")),
    Row(text("verify_lockfile", "Hold the installed packages against this lock file first.", metavar="PATH")),
    Row(flag("skip_validation", "Skip the checks of launcher and hosts; for finding faults only.")),
    Row(flag("skip_fs_separation_gate", "Only record whether data and results are two file systems.")),
)
MPI: Final = (
    Row(text("mpi_bin", "Launcher of the ranks.", default="mpirun", choices=("mpirun", "mpiexec"))),
    Row(flag("oversubscribe", "Let Open MPI start more ranks than a host has cores or slots.")),
    Row(flag("allow_run_as_root", "Let Open MPI start ranks as root, as in a container.")),
    Row(
        text(
            "mpi_btl",
            "Transport of Open MPI on a single host; auto leaves it the choice.",
            default="auto",
            choices=("auto", "vader", "tcp"),
        )
    ),
    Row(text("mpi_params", "Words for the launcher, as they are; may be repeated.", many=True, metavar="STRING")),
)
HOSTS: Final = Row(
    text(
        "hosts",
        "Hosts of the ranks: a b c, a,b,c or a:4,b:4.",
        "-s",
        default=["127.0.0.1"],
        many=True,
        metavar="HOST...",
    )
)
EXEC_TYPE: Final = Row(text("exec_type", "How ranks are started.", "-et", default="mpi", choices=("mpi", "docker")))
DLIO_BIN: Final = Row(
    text("dlio_bin_path", "Taken for scripts' sake: the engine here is our own.", "-dp", metavar="DIR")
)
PARAMS: Final = Row(
    text(
        "params",
        "Change the workload: dotted keys, several in a row or repeated.",
        "--param",
        "-p",
        many=True,
        metavar="KEY=VALUE...",
    )
)
O_DIRECT: Final = Row(
    flag("o_direct", "Read and write past the page cache."), ("datagen", "run", "configview"), access=(FILE,)
)
LOOPS: Final = Row(whole("loops", "Runs, one after the other.", default=1, low=1, high=10_000), divisions=LOOSE)
ALLOW_INVALID: Final = Row(
    flag("allow_invalid_params", "Run although the rules would call it invalid.", "-aip"), divisions=LOOSE
)
SERIES: Final = (
    Row(
        number("timeseries_interval", "Seconds between samples of the hosts.", default=10.0, low=0.1, high=3600),
        ("run",),
        LOOSE,
    ),
    Row(flag("skip_timeseries", "Sample no hosts."), ("run",), LOOSE),
    Row(
        whole("max_timeseries_samples", "Most samples kept a host.", default=SAMPLES_MAX, low=2, high=SAMPLES_MAX),
        ("run",),
        LOOSE,
    ),
)
TRAINING_ROWS: Final = (
    HOSTS,
    Row(
        number("client_host_memory_in_gb", "Memory of each client, in GiB.", "-cm", low=0.001, high=1 << 20),
        ("datasize", "run", "configview"),
        needed=("datasize", "run", "configview"),
    ),
    Row(
        whole("max_accelerators", "Most accelerators that will be emulated.", "-ma", low=1, high=1 << 20),
        ("datasize",),
        needed=("datasize",),
    ),
    Row(
        whole("num_processes", "Processes that make the dataset.", "-np", low=1, high=1 << 20),
        ("datagen",),
        needed=("datagen",),
    ),
    Row(
        whole("num_accelerators", "Accelerators to emulate.", "-na", low=1, high=1 << 20),
        ("run", "configview"),
        needed=("run", "configview"),
    ),
    Row(
        text("accelerator_type", "Accelerator to emulate.", "-at"),
        ("datasize", "run", "configview"),
        needed=("datasize", "run", "configview"),
        limit="accelerator",
    ),
    Row(
        whole("num_client_hosts", "Clients; as many as --hosts when not given.", "-nc", low=1, high=1 << 16),
        ("datasize", "run", "configview"),
    ),
    EXEC_TYPE,
    Row(
        text(
            "data_dir",
            "Where the dataset lies: a folder, a key prefix or a URI.",
            "-dd",
            environment="MLPSTORAGE_DATA_DIR",
            metavar="PATH",
        ),
        needed=("datagen", "run"),
    ),
    DLIO_BIN,
    PARAMS,
    O_DIRECT,
    Row(
        whole(
            "drop_caches_timeout_seconds",
            "Longest time to empty the page cache of the dataset before an epoch.",
            low=1,
            high=86_400,
        ),
        ("run",),
    ),
    LOOPS,
    ALLOW_INVALID,
    *SERIES,
)
CHECKPOINTING_ROWS: Final = (
    HOSTS,
    Row(
        number("client_host_memory_in_gb", "Memory of each client, in GiB.", "-cm", low=0.001, high=1 << 20),
        needed=("datasize", "run", "configview"),
    ),
    Row(
        whole("num_processes", "Processes that hold the model.", "-np", low=1, high=1 << 20),
        needed=("datasize", "run", "configview"),
    ),
    Row(whole("num_checkpoints_read", "Checkpoints to read.", "-ncr", default=10, low=0, high=100_000), limit="counts"),
    Row(
        whole("num_checkpoints_write", "Checkpoints to write.", "-ncw", default=10, low=0, high=100_000), limit="counts"
    ),
    Row(
        text(
            "checkpoint_folder",
            "Where the checkpoints lie: a folder, a key prefix or a URI.",
            "-cf",
            environment="MLPSTORAGE_CHECKPOINT_FOLDER",
            metavar="PATH",
        ),
        needed=("run",),
    ),
    Row(
        text("accelerator_type", "Accelerator whose memory holds the model.", "-at"),
        ("run", "configview"),
        needed=("run", "configview"),
        limit="accelerator",
    ),
    Row(flag("checkpoint_subset", "Declare a subset: llama3-8b with exactly 8 ranks.")),
    O_DIRECT,
    EXEC_TYPE,
    DLIO_BIN,
    LOOPS,
    msgspec.structs.replace(PARAMS, divisions=LOOSE),
    ALLOW_INVALID,
    *SERIES,
)
