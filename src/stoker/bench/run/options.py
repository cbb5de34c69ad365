"""The options of the benchmark's verbs, a row each: the command line, the help, the documentation and the checks
read this table and nothing else."""

from typing import Final

from stoker.core.options import Option
from stoker.core.units import KiB, MiB
from stoker.loader.tuning_bounds import PINNED_MOST

_WORKLOAD: Final = (
    Option("model", "text", "MLPerf model whose data and timing to use, such as unet3d, resnet50 or cosmoflow."),
    Option("accelerator", "text", "Accelerator to emulate, with how many: h100:2.", metavar="KIND[:COUNT]"),
)
_ORDER: Final = (
    Option("seed", "int", "Seed of the access order; a fresh one each run when not given.", low=0),
    Option(
        "order",
        "text",
        "shuffled: a new permutation of the whole dataset each epoch; sequential; dlio: ascending within each rank's "
        "share, as stock DLIO reads.",
        default="shuffled",
        choices=("shuffled", "sequential", "dlio"),
    ),
)
_LOADER: Final = (
    Option("batch_size", "int", "Samples a step and rank; the model's own when not given.", low=1, high=1 << 20),
    Option(
        "read_threads",
        "int",
        "Reader threads a rank; the model's own when not given; 0 chooses them while the run goes on.",
        low=0,
        high=PINNED_MOST["readers"],
    ),
    Option(
        "queue_depth",
        "int",
        "Requests each reader has under way; 0 chooses while the run goes on.",
        default=0,
        low=0,
        high=PINNED_MOST["queue_depth"],
    ),
    Option(
        "request_bytes",
        "bytes",
        "Most bytes of a request, a multiple of 4 KiB; 0 chooses while the run goes on.",
        default=0,
        low=0,
        high=PINNED_MOST["request_bytes"],
        metavar="SIZE",
    ),
    Option("decode_threads", "int", "Decoder threads a rank.", low=1, high=256),
    Option("prefetch_batches", "int", "Batches kept ready ahead of the accelerator.", low=1, high=1024),
    Option("computation_time", "seconds", "Seconds of compute a step; the model's own when not given.", low=0),
    Option(
        "verify", "float", "Share of the files whose checksum is checked while reading.", default=0.0, low=0, high=1
    ),
    Option(
        "collate",
        "text",
        "views: hand out the decoded samples as they lie in the read buffers; stack: copy them into one aligned array.",
        default="views",
        choices=("views", "stack"),
    ),
)
_FSYNC: Final = Option(
    "fsync",
    "text",
    "What a finished write has made durable, in a folder: full (the file and its name), data, none. Full, or what the "
    "target's ?fsync= says, when not given.",
    choices=("none", "data", "full"),
)
_RUN: Final = (
    Option("results", "path", "Folder that receives a folder for this run.", default="stoker-results", metavar="DIR"),
    Option(
        "launcher",
        "text",
        "auto takes MPI under mpirun or srun, TCP where STOKER_CONDUCTOR is set, and local processes otherwise.",
        default="auto",
        choices=("auto", "local", "mpi", "tcp"),
    ),
    Option(
        "hosts",
        "text",
        "Start the ranks on these hosts, by mpirun, each with its number of ranks or all alike: a:4,b:2.",
        metavar="HOST[:N][,HOST…]",
    ),
    Option("mpi_bin", "text", "Launcher for --hosts: mpirun, mpiexec or a path; the one of this environment first."),
    Option(
        "mpi_btl",
        "text",
        "Transport of Open MPI: vader within one host, tcp between hosts; auto leaves it the choice.",
        default="auto",
        choices=("auto", "vader", "tcp"),
    ),
    Option("oversubscribe", "flag", "Let Open MPI start more ranks than a host has cores or slots.", default=False),
    Option("allow_run_as_root", "flag", "Let Open MPI start ranks as root, as in a container.", default=False),
    Option("mpi_params", "text", "Words for the launcher, as they are; may be repeated.", many=True, metavar="WORDS"),
    Option(
        "rank_deadline",
        "seconds",
        "A rank that is not heard of for so long is lost: it is named with its host, and the others stop.",
        default=30.0,
        low=1,
        high=3600,
        metavar="DURATION",
    ),
    Option(
        "host_interval",
        "seconds",
        "How often the hosts' counters are sampled; 0 samples none.",
        default=10.0,
        low=0,
        high=3600,
        metavar="DURATION",
    ),
    Option(
        "sample_hosts",
        "text",
        "Further hosts to sample over SSH, such as those of the storage: a,b,c.",
        metavar="HOST[,HOST…]",
    ),
    Option("evict", "flag", "Drop the dataset from this host's page cache before each epoch.", default=True),
    Option("label", "text", "key=value kept in the result; may be repeated.", many=True, metavar="KEY=VALUE"),
)

FEED: Final = (
    *_WORKLOAD,
    Option("budget", "seconds", "Time for everything: generate, run, report.", default=60.0, low=5, metavar="DURATION"),
    Option("keep", "flag", "Keep the generated dataset, so that the next run need not make it.", default=False),
    Option("size_max", "bytes", "Most bytes to generate; half of the free space when not given.", low=1 * MiB),
    *_ORDER,
    *_LOADER,
    *_RUN,
)
TRAINING: Final = (
    *_WORKLOAD,
    Option("epochs", "int", "Epochs; 0 repeats them until --duration ends. The model's own when not given.", low=0),
    Option("steps", "int", "Most steps an epoch; 0 takes all.", default=0, low=0),
    Option("duration", "seconds", "Longest time for the measured part; 0 has no limit.", default=0.0, low=0),
    Option("format", "text", "Format of a dataset that carries no manifest of ours.", metavar="NAME"),
    Option("samples_per_file", "int", "Samples a file of a dataset that carries no manifest.", low=1),
    Option("threshold", "float", "AU that a yes needs, 0..1; the model's own when not given.", low=0, high=1),
    *_ORDER,
    *_LOADER,
    *_RUN,
)
PLAN: Final = (
    *TRAINING,
    Option("division", "text", "Hold the job against the rules of a division.", choices=("closed", "open", "whatif")),
    Option("edition", "text", "Edition of the rules.", default="3.0", choices=("1.0", "2.0", "3.0")),
    Option("place", "path", "Where a dataset will lie that is not made yet; it is only looked at.", metavar="DIR"),
    Option("clients", "int", "Client hosts; those of --hosts when not given, else 1.", low=1, high=65_536),
    Option("client_memory", "bytes", "Memory of a client host; this host's when not given.", low=1 * MiB),
    Option("line_rate", "bytes", "Bytes a second of a client's port, 12.5GB for 100 Gb/s; else as its driver tells."),
    Option("write_rate", "bytes", "Bytes a second that a client writes, for the time that generating takes.", low=1),
    Option("override", "text", "key=value changed in the workload; may be repeated.", many=True, metavar="KEY=VALUE"),
    Option("subset", "flag", "A checkpoint subset, as far as the rules have one.", default=False),
    Option("writes", "int", "Checkpoints written.", default=10, low=0, high=10_000),
    Option("reads", "int", "Checkpoints read.", default=10, low=0, high=10_000),
    Option("vectors", "int", "Vectors of a collection.", default=1_000_000, low=1),
    Option("dimension", "int", "Numbers of a vector.", default=1536, low=1, high=1 << 20),
    Option("users", "int", "Users of a client of the KV cache; 0 takes what closed fixes.", default=0, low=0),
)
CHECKPOINTING: Final = (
    Option("model", "text", "Model whose checkpoints are written: llama3-8b, llama3-70b, llama3-405b or llama3-1t."),
    Option("ranks", "int", "Ranks that write and read; the model's own number when not given.", low=1, high=1 << 20),
    Option("accelerator", "text", "Accelerator that each rank stands for, kept in the result.", metavar="KIND"),
    Option("num_checkpoints_write", "int", "Checkpoints to write; 0 only reads.", default=10, low=0, high=1 << 20),
    Option("num_checkpoints_read", "int", "Checkpoints to read; 0 only writes.", default=10, low=0, high=1 << 20),
    Option("interval", "seconds", "Pause before each.", default=5.0, low=0, high=86400, metavar="DURATION"),
    _FSYNC,
    Option("write_buffers", "int", "Buffers a rank stages content in.", default=8, low=2, high=4096),
    Option(
        "buffer_bytes",
        "bytes",
        "Size of a buffer, and of the pieces that are read; a multiple of 4 KiB.",
        default=16 * MiB,
        low=4 * KiB,
        high=1 << 30,
        metavar="SIZE",
    ),
    Option("writers", "int", "Files a rank writes at once.", default=1, low=1, high=64),
    Option("read_depth", "int", "Pieces a rank reads at once.", default=4, low=1, high=256),
    Option(
        "verify", "float", "Share of what is read that is held against what was written.", default=0.0, low=0, high=1
    ),
    Option("keep", "int", "Keep only so many of the last ones while writing; 0 keeps all.", default=0, low=0),
    Option("clean", "flag", "Remove at the end what this run wrote.", default=False),
    Option("rank_sync", "flag", "Let the clock of every rank run until all are done.", default=False),
    Option("subset", "flag", "Write the share of fewer ranks than the model has, and declare it.", default=False),
    Option(
        "scale", "float", "Cut every tensor to this share of its length: not the model any more.", default=1.0, high=1
    ),
    Option("layers", "int", "Transformer layers; the model's own when not given: not the model any more.", low=1),
    Option("seed", "int", "Seed of the content; a fresh one each run when not given.", low=0),
    *_RUN,
)
GEN: Final = (
    *_WORKLOAD,
    Option("format", "text", "File format; the model's own when a model is given.", metavar="NAME"),
    Option("files", "int", "Files to make; with a model and no --files or --size, what a compliant run needs.", low=1),
    Option("size", "bytes", "Make about this many bytes instead of counting files.", low=4 * KiB),
    Option("samples_per_file", "int", "Samples in each file.", low=1),
    Option("record_length", "bytes", "Mean bytes of a sample.", low=1),
    Option("record_stdev", "bytes", "Standard deviation of a sample's bytes.", low=0),
    Option("dims", "text", "Exact shape of a sample instead of its length: 128x128x3.", metavar="AxBxC"),
    Option("element_type", "text", "NumPy type of the elements.", default="uint8"),
    Option("compression", "text", "Compression inside the files, where the format has it.", metavar="NAME"),
    Option("split", "text", "Which split to make.", default="train", choices=("train", "valid")),
    Option("subfolders", "int", "Spread the files over this many folders.", default=0, low=0),
    Option("content_seed", "int", "Seed of the content: the same seed gives the same bytes.", default=10, low=0),
    Option("compress_ratio", "float", "How far the content shrinks: 2 means to a half.", default=1.0, low=1, high=100),
    Option("duplicate_ratio", "float", "Share of 4 KiB blocks that occur elsewhere.", default=0.0, low=0, high=0.99),
    Option("processes", "int", "Generator processes.", low=1, high=4096),
    _FSYNC,
    Option("verify", "flag", "Read everything back and hold it against the manifest.", default=False),
    Option("force", "flag", "Replace a dataset of ours that was made differently.", default=False),
    Option("remove", "flag", "Remove the dataset that we made here, and nothing else.", default=False),
)
