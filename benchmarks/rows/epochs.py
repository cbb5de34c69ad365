"""Row b: epochs of the workloads' formats from the page cache, our Loader beside what users pick.

Every contender runs in a fresh process, delivers two epochs unmeasured and then some measured ones; what counts is
samples per CPU second and bytes a second. They do not do the same, and the differences favour the others: s3dlio hands
on undecoded bytes, DLIO drops the array and hands on one constant, the plain loops hand on nothing at all. One thing
favours us: what is large and cached is lent as a mapping, so its bytes move only when somebody reads them. So two more
of ours stand beside: one whose consumer reads every byte, and one with mapping turned off.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.dataset import Made, make_dataset
from benchmarks.dlio import Dlio
from benchmarks.harness import Contender, Turn, race
from benchmarks.peers import run_turn, turn_of
from stoker.bench.workloads.catalogue.entries import entry
from stoker.core.plan import DatasetSpec
from stoker.core.units import KiB, MiB
from stoker.loader.dataset.shapes import payload_bytes
from stoker.loader.options import LoaderOptions

CEILING = "plain reads, nothing decoded"
READ_ONCE = "stoker, the consumer reads every byte"
COPIED = "stoker, mapping turned off"
GATHERED = "stoker, every column asked for as one array a batch"
_TFRECORD_IMAGE_BYTES = 114_660


Taking = tuple[list[Contender], dict[str, str]]
"""Who takes part, and who does not, with the reason."""


class Case(NamedTuple):
    """A dataset like a workload's and how it is read; `peers` are those that can read it."""

    key: str
    spec: DatasetSpec
    batch_size: int
    epochs: int
    peers: tuple[str, ...]


def _parquet(model: str, files: int, rows: int) -> DatasetSpec:
    """Return a workload's Parquet rows in shorter files."""
    spec = entry(model, "b200").dataset(files=files)
    return DatasetSpec(
        spec.format,
        files,
        rows,
        record_length_bytes=spec.record_length_bytes,
        record_dims=spec.record_dims,
        options=spec.options,
    )


def all_cases() -> list[Case]:
    """Return the cases: sizes of the workloads' samples, as many as two cores get through."""
    files = ("s3dlio", "torch", "dlio")
    return [
        Case("epochs/unet3d npz 140 MiB", _spec("npz", 8, 140 * MiB), 2, 3, files),
        Case("epochs/retinanet jpeg 110 KiB", _spec("jpeg", 2000, 110 * KiB), 24, 1, files),
        Case("epochs/resnet50 tfrecord 112 KiB", _spec("tfrecord", 4, _TFRECORD_IMAGE_BYTES, 1251), 400, 3, ("tf",)),
        Case("epochs/cosmoflow tfrecord 2.7 MiB", _spec("tfrecord", 256, 2_828_486), 1, 3, ("tf",)),
        Case("epochs/dlrm parquet", _parquet("dlrm", 2, 32 * 6144), 16_384, 3, ("parquet",)),
        Case("epochs/flux parquet 2.1 MiB", _parquet("flux", 2, 96), 24, 3, ("parquet",)),
        Case("epochs/hdf5 1 MiB", _spec("hdf5", 256, MiB), 4, 5, ("hdf5",)),
    ]


def _spec(format_name: str, files: int, record_bytes: float, samples: int = 1) -> DatasetSpec:
    return DatasetSpec(format_name, files, samples, record_length_bytes=record_bytes)


def shrunk(case: Case) -> Case:
    """Return the case with half the files, one epoch."""
    spec = case.spec
    fewer = {name: getattr(spec, name) for name in spec.__struct_fields__} | {"files": spec.files // 2}
    return case._replace(spec=DatasetSpec(**fewer), epochs=1)


def sample_bytes(spec: DatasetSpec) -> float:
    """Return the mean payload of a sample: its numbers, of Parquet those in the columns that are read."""
    read = [column for column in spec.options.get("columns", ()) if column["read"]]
    if read:
        return float(sum(column["size"] * np.dtype(column["dtype"]).itemsize for column in read))
    return payload_bytes(spec, range(spec.files)) / spec.samples


def script_contender(name: str, python: str, script: str, **asked: Any) -> Contender:
    """Return a contender whose turn is a script run by `python`.

    Everybody's bytes are the payload of the samples delivered, however much of it was read or decoded for that.
    """

    def turn() -> Turn:
        told = turn_of(run_turn(python, script, asked))
        return replace(told, payload_bytes=round(told.samples * asked["sample_bytes"]))

    return Contender(name, turn)


def contenders_of(case: Case, made: Made, conditions: Conditions) -> Taking:
    """Return who takes part, the ceiling first, ours next, and who is missing."""
    workers, ours = conditions.workers, conditions.python
    common = {"epochs": case.epochs, "workers": workers, "paths_file": str(made.paths_file)}
    common |= {"batch_size": case.batch_size, "format": case.spec.format, "samples": case.spec.samples}
    common |= {"sample_bytes": sample_bytes(case.spec)}
    loader = made.loader_turn(batch_size=case.batch_size, read_threads=workers, decode_threads=0)
    found = [
        script_contender(CEILING, ours, "plain_epoch", **{**common, "format": "read"}),
        script_contender("stoker", ours, "stoker_epoch", **{**common, **loader}),
    ]
    if sample_bytes(case.spec) >= LoaderOptions(batch_size=1).map_bytes:
        # What is mapped costs nothing until it is read: shown with every byte read, and with mapping turned off.
        copied = made.loader_turn(batch_size=case.batch_size, read_threads=workers, decode_threads=0, map_bytes=0)
        found += [
            script_contender(READ_ONCE, ours, "stoker_epoch", **{**common, **loader}, read_samples=True),
            script_contender(COPIED, ours, "stoker_epoch", **{**common, **copied}),
        ]
    columns = _columns_read(case)
    if columns:
        found.append(script_contender(GATHERED, ours, "stoker_epoch", **common, **loader, arrays=columns))
    missing: dict[str, str] = {}
    for peer in case.peers:
        more, gone = _PEERS[peer](case, made, conditions, common)
        found += more
        missing |= gone
    return found, missing


def _columns_read(case: Case) -> list[str]:
    """Return the names of the columns that a consumer of the dataset reads."""
    return [column["name"] for column in case.spec.options.get("columns", []) if column["read"]]


def _torch(kinds: tuple[str, ...], _: Case, __: Made, conditions: Conditions, common: dict[str, Any]) -> Taking:
    name, python = "PyTorch DataLoader", conditions.peers.python("torch")
    if python is None:
        return [], {name: conditions.peers.missing["torch"]}
    library = {"npz": "np.load", "jpeg": "Pillow"}[common["format"]]
    told = {"stack": "default collate", "list": "list, no collate"}
    return [
        script_contender(f"{name} + {library}, {told[kind]}", python, "torch_epoch", **common, collate=kind)
        for kind in kinds
    ], {}


def _s3dlio(_: Case, __: Made, conditions: Conditions, common: dict[str, Any]) -> Taking:
    python = conditions.peers.python("s3dlio")
    if python is None:
        return [], {"s3dlio": conditions.peers.missing["s3dlio"]}
    names = {"get_many": "s3dlio get_many, undecoded", "loader": "s3dlio async loader, undecoded"}
    return [script_contender(name, python, "s3dlio_epoch", **common, mode=mode) for mode, name in names.items()], {}


def _tf(_: Case, __: Made, conditions: Conditions, common: dict[str, Any]) -> Taking:
    python = conditions.peers.python("tensorflow")
    if python is None:
        return [], {"tf.data": conditions.peers.missing["tensorflow"]}
    return [script_contender("tf.data", python, "tf_epoch", **common)], {}


def _loop(library: str, case: Case, __: Made, conditions: Conditions, common: dict[str, Any]) -> Taking:
    columns = _columns_read(case)
    name = f"{library} loop in worker processes"
    return [script_contender(name, conditions.python, "plain_epoch", **common, columns=columns)], {}


def _dlio(case: Case, made: Made, conditions: Conditions, __: dict[str, Any]) -> Taking:
    python = conditions.peers.python("dlio")
    if python is None:
        return [], {"DLIO": conditions.peers.missing["dlio"]}
    dlio = Dlio(
        python,
        made.folder,
        case.spec,
        case.batch_size,
        max(4, 2 * case.epochs),
        conditions.workers,
        sample_bytes(case.spec),
    )
    return [Contender("DLIO, PyTorch loader", dlio.turn)], {}


_PEERS = {
    "torch": partial(_torch, ("stack", "list")),
    "torch_stack": partial(_torch, ("stack",)),
    "s3dlio": _s3dlio,
    "tf": _tf,
    "dlio": _dlio,
    "hdf5": partial(_loop, "h5py"),
    "parquet": partial(_loop, "PyArrow"),
}


def contest(case: Case, conditions: Conditions, folder: Path) -> Contest:
    """Make the case's dataset and race on it."""
    made = make_dataset(folder / "data", case.spec)
    contenders, missing = contenders_of(case, made, conditions)
    race(contenders, conditions.rounds, warm_rounds=0)
    note = f"{case.spec.files} files, batch {case.batch_size}, {case.epochs} epochs, {conditions.workers} workers."
    return Contest(case.key, contenders, CEILING, note, missing)


def run(conditions: Conditions) -> list[Contest]:
    """Run every case in a folder of its own, removed before the next."""
    cases = [shrunk(case) for case in all_cases()] if conditions.scale == "quick" else all_cases()
    contests = []
    for case in cases:
        with conditions.folder(3 * 1024 * MiB) as folder:
            contests.append(contest(case, conditions, folder))
    return contests
