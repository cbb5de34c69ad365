"""Every key below `workload.`, a row each: the reference of what is accepted and of what comes of it."""

from typing import Final

from stoker.bench.run.dlio.schema import HONOURED, INERT, NOT_RUN, NOTED, Key, Table

FRAMEWORKS: Final = ("tensorflow", "pytorch", "jax")
LOADERS: Final = ("tensorflow", "pytorch", "jax", "dali", "native_dali", "custom", "none", "synthetic")
FORMATS: Final = (
    *("tfrecord", "hdf5", "csv", "npz", "npy", "jpeg", "png"),
    *("indexed_binary", "mmap_indexed_binary", "synthetic", "parquet"),
)
SHUFFLES: Final = ("off", "seed", "random")
STARTS: Final = ("fork", "spawn", "forkserver")
ACCESSES: Final = ("multi", "shared", "collective", "mpio", "posix")
PROFILERS: Final = ("iostat", "darshan", "tensorboard", "default", "dftracer", "none")
LIBRARIES: Final = ("s3dlio", "minio", "s3torchconnector", "direct", "posix")
SCHEMES: Final = ("s3", "az", "gs", "direct", "file")
DATATYPES: Final = ("fp16", "bf16", "fp32", "fp64", "int8", "uint8")
STORAGE_TYPES: Final = ("local_fs", "parallel_fs", "direct_fs", "s3", "aistore")
COMPRESSIONS: Final = ("none", "gzip", "lzf", "bz2", "zip", "xz", "snappy", "brotli", "zstd", "lz4")

_MODEL: Final = (
    Key("model.name", "text", "default", "label of the run, part of the output folder"),
    Key("model.type", "text", None, "free label, kept with the settings"),
    *(
        Key(f"model.{name}", kind, default, meaning, HONOURED, choices, low, "checkpoint")
        for name, kind, default, meaning, choices, low in (
            ("model_size_bytes", "int", 10240, "bytes of the model blob in a checkpoint", (), 0),
            ("model_datatype", "choice", "fp16", "type of the layers' tensors", DATATYPES, None),
            ("optimizer_datatype", "choice", "fp32", "type of the optimizer's tensors", DATATYPES, None),
            ("optimization_groups", "ints", [], "lengths of the optimizer's groups", (), 0),
            ("num_layers", "int", -1, "transformer layers", (), -1),
            ("layer_parameters", "ints", [], "tensor lengths of a layer", (), 0),
            ("parallelism.tensor", "int", 1, "tensor-parallel degree", (), 1),
            ("parallelism.pipeline", "int", 1, "pipeline-parallel degree", (), 1),
            ("parallelism.data", "int", -1, "data-parallel degree, for subset mode", (), -1),
            ("parallelism.zero_stage", "int", 0, "ZeRO stage, 0 to 3", (), 0),
            ("transformer.vocab_size", "int", 32000, "vocabulary", (), 1),
            ("transformer.hidden_size", "int", 2048, "hidden size", (), 1),
            ("transformer.ffn_hidden_size", "int", 8192, "feed-forward size", (), 1),
            ("transformer.num_attention_heads", "int", 32, "attention heads", (), 1),
            ("transformer.num_kv_heads", "int", 8, "key-value heads", (), 1),
        )
    ),
)

_WORKFLOW: Final = (
    Key("framework", "choice", "tensorflow", "framework that trains", NOTED, FRAMEWORKS),
    Key("workflow.generate_data", "bool", False, "write the dataset first"),
    Key("workflow.train", "bool", True, "run the training epochs"),
    Key("workflow.evaluation", "bool", False, "run the evaluation"),
    Key("workflow.checkpoint", "bool", False, "write checkpoints, in the training loop or alone"),
    Key("workflow.profiling", "bool", False, "start the profiler", NOT_RUN),
    Key("workflow.query", "text", None, "key that is printed instead of a run"),
)

_DATASET: Final = (
    Key("dataset.record_length_bytes", "float", 65536, "mean bytes of a sample", low=1),
    Key("dataset.record_length_bytes_stdev", "float", 0, "spread of a sample's bytes", low=0),
    Key("dataset.record_length_bytes_resize", "float", 0, "size of the constant tensor handed on", NOTED, low=0),
    Key("dataset.num_files_train", "int", 8, "files of the training split", low=0),
    Key("dataset.num_files_eval", "int", 0, "files of the evaluation split", low=0),
    Key("dataset.num_samples_per_file", "int", 1, "samples in each file", low=1),
    Key("dataset.generation_buffer_size", "int", 2 << 30, "buffer of the indexed generator", NOTED, low=1),
    Key("dataset.data_folder", "text", "./data/", "folder or URL above train/ and valid/"),
    Key("dataset.num_subfolders_train", "int", 0, "more than 1: numbered subfolders", low=0),
    Key("dataset.num_subfolders_eval", "int", 0, "the same for the evaluation split", low=0),
    Key("dataset.enable_chunking", "bool", False, "unused", INERT),
    Key("dataset.chunk_size", "int", 0, "unused", INERT),
    Key("dataset.compression", "choice", "none", "compression inside the files", HONOURED, COMPRESSIONS),
    Key("dataset.compression_level", "int", 4, "its level, for gzip in hdf5 and zip in npz", low=0),
    Key("dataset.file_prefix", "text", "img", "first part of a file's name"),
    Key("dataset.format", "choice", "tfrecord", "file format", HONOURED, FORMATS),
    Key("dataset.keep_files", "bool", True, "false removes the dataset at the end, if we made it"),
    Key("dataset.record_element_bytes", "int", 4, "overwritten by the element type's size", INERT),
    Key("dataset.record_element_type", "text", "uint8", "NumPy type of the elements"),
    Key("dataset.record_dims", "ints", [], "shape of a sample instead of its length", low=1),
    Key("dataset.hdf5.chunk_dims", "ints", [], "shape of an HDF5 chunk", low=1),
    Key("dataset.hdf5.num_dset_per_record", "int", 1, "HDF5 datasets a sample is split over", low=1),
    Key("dataset.hdf5.max_shape", "ints", [], "largest shape of the HDF5 dataset", low=1),
    Key("dataset.parquet.columns", "columns", [], "columns as {name, dtype, size, read}"),
    Key("dataset.parquet.row_group_size", "int", 1024, "rows of a row group", low=1),
    Key("dataset.parquet.partition_by", "text", None, "partition column", NOT_RUN),
    Key("dataset.parquet.generation_batch_size", "int", 0, "rows generated at a time", NOTED, low=0),
    Key("dataset.parquet.use_s3dlio_gen", "bool", False, "generator library", NOTED),
    Key("dataset.parquet.read_mode", "text", "row_group", "how much is read at a time", NOTED),
    Key("dataset.parquet.row_group_cache_size", "int", 4, "decoded row groups kept", NOTED, low=0),
    Key("dataset.data_gen_method", "choice", "dgen", "generator library", NOTED, ("dgen", "numpy")),
    Key("dataset.skip_listing", "bool", False, "name the files by arithmetic", NOTED),
    Key("dataset.listing_validation_interval", "int", 1000, "every n-th name is checked", NOTED, low=1),
    Key("dataset.listing_threads", "int", 4, "threads that list", NOTED, low=1),
)

_READER: Final = (
    Key("reader.data_loader", "choice", "tensorflow", "loader of the framework", NOTED, LOADERS),
    Key("reader.data_loader_classname", "text", None, "loader plug-in", NOT_RUN),
    Key("reader.data_loader_sampler", "choice", None, "sampler", NOTED, ("iterative", "index", "none")),
    Key("reader.reader_classname", "text", None, "reader plug-in", NOT_RUN),
    Key("reader.multiprocessing_context", "choice", "fork", "how workers are started", NOTED, STARTS),
    Key("reader.read_threads", "int", 1, "reading threads of a rank; 0 counts as 1", low=0),
    Key("reader.write_threads", "int", 1, "writing threads of a rank", NOTED, low=1),
    Key("reader.computation_threads", "int", 1, "decoding threads of a rank", low=1),
    Key("reader.batch_size", "int", 1, "samples a step and rank", low=1),
    Key("reader.batch_size_eval", "int", 1, "the same in the evaluation", low=0),
    Key("reader.prefetch_size", "int", 2, "batches kept ready; 0 counts as 2", low=0),
    Key("reader.file_shuffle", "choice", "off", "order of the files", HONOURED, SHUFFLES),
    Key("reader.sample_shuffle", "choice", "off", "order of the samples", HONOURED, SHUFFLES),
    Key("reader.shuffle_size", "int", 1024, "shuffle buffer", NOTED, low=0),
    Key("reader.file_access", "choice", "multi", "unused", INERT, ACCESSES),
    Key("reader.read_type", "choice", "on_demand", "when a file is read", NOTED, ("on_demand", "memory")),
    Key("reader.transfer_size", "int", None, "read buffer of the TFRecord reader", NOT_RUN, low=1),
    Key("reader.preprocess_time", "duration", 0.0, "seconds waited for each sample"),
    Key("reader.preprocess_time_stdev", "float", None, "its standard deviation", low=0),
    Key("reader.pin_memory", "bool", True, "pinned memory", NOTED),
    Key("reader.odirect", "bool", False, "read around the page cache"),
    Key("reader.dont_use_mmap", "bool", False, "how the DALI reader opens files", NOTED),
    Key("reader.transformed_record_dims", "ints", [], "shape of the constant tensor handed on", NOTED, low=1),
    Key("reader.transformed_record_element_type", "text", "uint8", "its type", NOTED),
)

_TRAIN: Final = (
    Key("train.epochs", "int", 1, "passes over the dataset", low=1),
    Key("train.total_training_steps", "int", -1, "most steps of an epoch; -1: all", low=-1),
    Key("train.seed_change_epoch", "bool", True, "another order every epoch"),
    Key("train.computation_time", "duration", 0.0, "seconds of compute a step"),
    Key("train.computation_time_stdev", "float", None, "its standard deviation", low=0),
    Key("train.seed", "int", 123, "seed of the order", low=0),
    Key("evaluation.eval_time", "duration", 0.0, "seconds of compute an evaluation step"),
    Key("evaluation.eval_time_stdev", "float", None, "its standard deviation", low=0),
    Key("evaluation.eval_after_epoch", "int", 1, "first epoch with an evaluation", low=0),
    Key("evaluation.epochs_between_evals", "int", 1, "epochs from one evaluation to the next", low=0),
)

_CHECKPOINT: Final = tuple(
    Key(f"checkpoint.{name}", kind, default, meaning, effect, choices, None, "checkpoint")
    for name, kind, default, meaning, effect, choices in (
        ("checkpoint_folder", "text", "./checkpoints/", "folder or URL of the checkpoints", HONOURED, ()),
        ("checkpoint_after_epoch", "int", 1, "first epoch with a checkpoint", HONOURED, ()),
        ("epochs_between_checkpoints", "int", 1, "epochs from one checkpoint to the next", HONOURED, ()),
        ("steps_between_checkpoints", "int", -1, "steps from one checkpoint to the next", HONOURED, ()),
        ("type", "choice", "rank_zero", "unused by DLIO", INERT, ("rank_zero", "all_ranks")),
        ("mode", "choice", "default", "all ranks or a subset", HONOURED, ("default", "subset")),
        ("checkpoint_mechanism_classname", "text", None, "checkpoint plug-in", NOT_RUN, ()),
        ("checkpoint_mechanism", "text", None, "checkpoint mechanism", NOTED, ()),
        ("fsync", "bool", False, "fsync after each file", HONOURED, ()),
        ("time_between_checkpoints", "float", -1, "seconds waited before each checkpoint", HONOURED, ()),
        ("num_checkpoints_write", "int", -1, "checkpoints to write", HONOURED, ()),
        ("num_checkpoints_read", "int", -1, "checkpoints to read", HONOURED, ()),
        ("recovery_rank_shift", "bool", False, "read what the neighbour node wrote", NOT_RUN, ()),
        ("rank_sync", "bool", False, "barrier inside the timed part", HONOURED, ()),
        ("randomize_tensor", "bool", True, "random content", NOTED, ()),
        ("ksm", "mapping", None, "memory merging", NOT_RUN, ()),
    )
)

_REST: Final = (
    Key("output.folder", "text", None, "folder of the output files"),
    Key("output.log_file", "text", "dlio.log", "name of the log in it"),
    Key("output.metric.exclude_start_steps", "int", 1, "first steps left out of the utilisation", low=0),
    Key("output.metric.exclude_end_steps", "int", 0, "last steps left out of the utilisation", low=0),
    Key("profiling.profiler", "choice", "iostat", "profiler", NOT_RUN, PROFILERS, when="profiling"),
    Key("profiling.iostat_devices", "words", [], "devices iostat watches", NOT_RUN, when="profiling"),
    Key("storage.storage_type", "choice", "local_fs", "kind of storage", HONOURED, STORAGE_TYPES),
    Key("storage.storage_root", "text", "./", "folder or bucket before data_folder"),
    Key("storage.storage_options", "mapping", None, "endpoint, region and credentials"),
    Key("storage.storage_library", "choice", None, "client library", NOTED, LIBRARIES),
    Key("storage.uri_scheme", "choice", "s3", "scheme of the bucket", HONOURED, SCHEMES),
    Key("storage.simulate_io", "bool", False, "read nothing", NOT_RUN),
    Key("storage.post_generation_settle_seconds", "float", 0, "wait after generation", NOT_RUN, low=0),
    Key("metric.au", "float", 0.90, "utilisation that passes, 0 to 1", low=0),
    Key("logging.verbosity", "text", None, "how much is logged", NOTED),
)

MISSPELLINGS: Final = {
    "model.model_size": "model.model_size_bytes",
    "model.size": "model.model_size_bytes",
    "workflow.evaluate": "workflow.evaluation",
    "workflow.generate": "workflow.generate_data",
    "workflow.profile": "workflow.profiling",
    "dataset.record_length": "dataset.record_length_bytes",
    "dataset.record_length_stdev": "dataset.record_length_bytes_stdev",
    "dataset.record_length_resize": "dataset.record_length_bytes_resize",
    "dataset.num_files": "dataset.num_files_train",
    "dataset.num_subfolders": "dataset.num_subfolders_train",
    "dataset.num_samples": "dataset.num_samples_per_file",
    "reader.prefetch": "reader.prefetch_size",
    "reader.compute_threads": "reader.computation_threads",
    "reader.num_workers": "reader.read_threads",
    "reader.shuffle": "reader.sample_shuffle",
    "train.total_steps": "train.total_training_steps",
    "evaluation.evaluation_time": "evaluation.eval_time",
    "checkpoint.folder": "checkpoint.checkpoint_folder",
    "metric.AU": "metric.au",
}

TABLE: Final = Table((*_MODEL, *_WORKFLOW, *_DATASET, *_READER, *_TRAIN, *_CHECKPOINT, *_REST), MISSPELLINGS)
