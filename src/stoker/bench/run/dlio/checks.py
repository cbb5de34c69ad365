"""What a configuration must fulfil as a whole: DLIO's own conditions, where they mean something here.

What cannot be done raises UsageError; what DLIO would refuse and this program can do is a `Problem`, told so that the
file still works elsewhere.
"""

from typing import Final

from stoker.bench.run.dlio.config import DlioConfig, Problem
from stoker.core.errors import UsageError

_LOADER_OF: Final = {"tensorflow": "pytorch", "pytorch": "tensorflow"}
_OTHER_LOADERS: Final = {
    "synthetic": "data_loader synthetic reads nothing in DLIO; here the files are read, so take format synthetic",
    "none": "data_loader none is no loader; the files are read here all the same",
    "custom": "data_loader custom names a class that is not loaded here; the files are read by our own loader",
}
_IMAGES: Final = ("jpeg", "png")
_REMOTE: Final = ("s3", "az", "gs")
_ODIRECT_FORMATS: Final = ("npy", "npz")
_OBJECT_FORMATS: Final = ("npy", "npz", "parquet")
_HDF5_KEYS: Final = ("dataset.hdf5.chunk_dims", "dataset.hdf5.num_dset_per_record", "dataset.hdf5.max_shape")
_PARQUET_KEYS: Final = ("dataset.parquet.columns", "dataset.parquet.row_group_size")


def check(config: DlioConfig) -> tuple[Problem, ...]:
    """Return what is to be told about the configuration as a whole.

    Raises UsageError for what cannot be done at all.
    """
    _check_shape(config)
    _check_ratio(config)
    return (*_loaders(config), *_formats(config), *_misplaced(config), *_storage(config))


def _check_shape(config: DlioConfig) -> None:
    dims = config.value("dataset.record_dims")
    form = config.text("dataset.format")
    if dims and config.number("dataset.record_length_bytes_stdev") > 0:
        where = config.where("dataset.record_dims")
        raise UsageError(
            "record_dims and record_length_bytes_stdev exclude each other", where=where, remedy="give one of the two"
        )
    if form in _IMAGES and len(dims) > 2:
        raise UsageError(f"{form} format does not support more than 2 dimensions, but got {len(dims)} dimensions.")
    parts = config.whole("dataset.hdf5.num_dset_per_record")
    if form == "hdf5" and dims and dims[0] % parts:
        raise UsageError(
            "record_dims[0] cannot be split over the datasets",
            where=config.where("dataset.hdf5.num_dset_per_record"),
            expected=f"a multiple of num_dset_per_record {parts}",
            got=str(dims[0]),
        )


def _check_ratio(config: DlioConfig) -> None:
    au = config.number("metric.au")
    if au > 1:
        remedy = f"write {au / 100:g}" if au <= 100 else ""
        raise UsageError(
            f"metric.au at {config.where('metric.au')} is no ratio", expected="0 to 1", got=f"{au:g}", remedy=remedy
        )


def _told(config: DlioConfig, path: str, message: str, kind: str = "refused_by_dlio") -> Problem:
    where = config.values[path].origin.where
    return Problem(kind, path, where, message)


def _loaders(config: DlioConfig) -> list[Problem]:
    framework, loader = config.text("framework"), config.text("reader.data_loader")
    problems: list[Problem] = []
    if not (config.given("reader.data_loader") and config.flag("workflow.train")):
        return problems
    if _LOADER_OF.get(framework) == loader:
        message = f"DLIO refuses framework {framework} with data_loader {loader}; it is read here all the same"
        problems.append(_told(config, "reader.data_loader", message))
    if config.text("dataset.format") == "tfrecord" and loader == "pytorch":
        message = "DLIO refuses tfrecord with data_loader pytorch; it is read here all the same"
        problems.append(_told(config, "dataset.format", message))
    if loader == "custom" and not config.given("reader.data_loader_sampler"):
        message = "DLIO refuses a custom loader without data_loader_sampler; it is read here all the same"
        problems.append(_told(config, "reader.data_loader", message))
    if loader in _OTHER_LOADERS:
        problems.append(_told(config, "reader.data_loader", _OTHER_LOADERS[loader], "not_run"))
    return problems


def _formats(config: DlioConfig) -> list[Problem]:
    form = config.text("dataset.format")
    problems = []
    if form in _IMAGES and config.text("dataset.record_element_type") != "uint8":
        message = f"{form} holds uint8, so record_element_type is taken as uint8"
        problems.append(_told(config, "dataset.record_element_type", message, "no_effect"))
    if config.flag("reader.odirect") and form not in _ODIRECT_FORMATS:
        problems.append(
            _told(config, "reader.odirect", f"DLIO refuses odirect with {form}; it is read here all the same")
        )
    if config.text("storage.storage_type") == "s3" and form not in _OBJECT_FORMATS:
        message = f"DLIO refuses s3 with {form}; it is read here all the same"
        problems.append(_told(config, "dataset.format", message))
    return problems


def _misplaced(config: DlioConfig) -> list[Problem]:
    """Return the keys of one format that were given for another."""
    form, compression = config.text("dataset.format"), config.text("dataset.compression")
    problems = [
        _told(config, path, f"{path} has no effect on {form}", "no_effect")
        for owner, paths in (("hdf5", _HDF5_KEYS), ("parquet", _PARQUET_KEYS))
        for path in paths
        if form != owner and config.given(path)
    ]
    if config.given("dataset.compression_level") and (form, compression) not in (("hdf5", "gzip"), ("npz", "zip")):
        message = f"compression_level has no effect on {form} with compression {compression}"
        problems.append(_told(config, "dataset.compression_level", message, "no_effect"))
    if config.flag("workflow.evaluation") and not config.flag("workflow.train"):
        message = "evaluation has no effect without training"
        problems.append(_told(config, "workflow.evaluation", message, "no_effect"))
    return problems


def _storage(config: DlioConfig) -> list[Problem]:
    """Return the storage keys that mean nothing where the data folder is a URL or the store is remote."""
    scheme, mark, rest = config.text("dataset.data_folder").partition("://")
    is_bucket = config.text("storage.storage_type") == "s3"
    root = config.text("storage.storage_root")
    problems = []
    if config.flag("reader.odirect") and (scheme in _REMOTE if mark else is_bucket):
        message = "odirect has no effect on a store that is reached over the network"
        problems.append(_told(config, "reader.odirect", message, "no_effect"))
    if mark and config.given("storage.storage_root") and root.strip("/") != rest.partition("/")[0]:
        message = "storage_root has no effect: data_folder is a whole URL"
        problems.append(_told(config, "storage.storage_root", message, "no_effect"))
    if config.given("storage.uri_scheme") and (mark or not is_bucket):
        message = "uri_scheme has no effect without storage_type s3 and a plain data_folder"
        problems.append(_told(config, "storage.uri_scheme", message, "no_effect"))
    return problems
