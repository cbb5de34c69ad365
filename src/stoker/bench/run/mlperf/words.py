"""A command as words of DLIO, `workload=unet3d_b200 ++workload.dataset.num_files_train=…`, each with its origin."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.tables import models
from stoker.bench.run.dlio import DlioConfig, compose, resolve
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.rows import CHECKPOINTING
from stoker.bench.run.mlperf.storing import DataPlace
from stoker.core.errors import UsageError

CONFIG_FOLDER: Final = "dlio_config"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./@+-]+")


class Word(msgspec.Struct, frozen=True):
    """One key below `workload`, its value as the word has it, and why it is there."""

    key: str
    value: str
    origin: str
    where: str = ""

    @property
    def text(self) -> str:
        """Return the word."""
        return f"++workload.{self.key}={self.value}"


def template(invocation: Invocation) -> str:
    """Return the name of the template: `unet3d_b200`, `llama3_8b`. The dataset is every accelerator's."""
    place = invocation.place
    if place.family == CHECKPOINTING:
        return place.model.replace("-", "_")
    kind = invocation.value("accelerator_type") or next(iter(models().training[place.model].accelerators))
    return f"{place.model}_{kind}"


def run_words(invocation: Invocation, data: DataPlace, dataset: Mapping[str, Word]) -> list[Word]:
    """Return the keys of a run; `dataset` are those that say how much there is to read."""
    if invocation.place.family == CHECKPOINTING:
        words = [*_checkpoint_words(invocation, data)]
    else:
        words = [
            Word("workflow.generate_data", "False", "tool"),
            Word("workflow.train", "True", "tool"),
            *_place_words(data),
            *dataset.values(),
        ]
    return _with_overrides([*words, *_direct(invocation)], invocation)


def generate_words(invocation: Invocation, data: DataPlace, dataset: Mapping[str, Word]) -> list[Word]:
    """Return the keys of a generation."""
    words = [
        Word("workflow.generate_data", "True", "tool"),
        Word("workflow.train", "False", "tool"),
        *_place_words(data),
        *dataset.values(),
        *_direct(invocation),
    ]
    return _with_overrides(words, invocation)


def command_words(invocation: Invocation, words: Iterable[Word], folder: str) -> list[str]:
    """Return the words of DLIO's command line; its own files go to `folder`."""
    where = [f"++hydra.run.dir={quoted(folder)}", f"++hydra.output_subdir={CONFIG_FOLDER}"] if folder else []
    return [f"workload={template(invocation)}", *(word.text for word in words), *where]


def resolved_config(invocation: Invocation, words: Iterable[Word], folder: str = "") -> DlioConfig:
    """Return the workload as the engine will see it. Raises UsageError as the engine would."""
    return resolve(compose(command_words(invocation, words, folder))[0])


def _place_words(data: DataPlace) -> list[Word]:
    if not data.is_object:
        return [Word("dataset.data_folder", quoted(data.folder), "tool", "--data-dir")]
    words = [
        Word("storage.storage_type", "s3", "tool", "object"),
        Word("storage.storage_root", quoted(data.bucket), "tool", "--data-dir"),
        Word("dataset.data_folder", quoted(data.prefix), "tool", "--data-dir"),
    ]
    if data.scheme != "s3":
        words.append(Word("storage.storage_options.uri_scheme", data.scheme, "tool", "--data-dir"))
    return words


def _checkpoint_words(invocation: Invocation, data: DataPlace) -> list[Word]:
    words = [
        Word("checkpoint.checkpoint_folder", quoted(data.url), "tool", "--checkpoint-folder"),
        Word("checkpoint.num_checkpoints_write", str(invocation.value("num_checkpoints_write")), "tool", "-ncw"),
        Word("checkpoint.num_checkpoints_read", str(invocation.value("num_checkpoints_read")), "tool", "-ncr"),
    ]
    whole = models().checkpointing[invocation.place.model].processes
    if invocation.value("checkpoint_subset") and invocation.ranks < whole:  # 8 ranks of 8B are its all
        words.append(Word("checkpoint.mode", "subset", "tool", "--checkpoint-subset"))
    return words


def _direct(invocation: Invocation) -> list[Word]:
    if not invocation.value("o_direct"):
        return []
    return [Word("reader.odirect", "True", invocation.settings["o_direct"].origin, "--o-direct")]


def _with_overrides(words: list[Word], invocation: Invocation) -> list[Word]:
    """Return the words with those of `--params`, which win. Raises UsageError where one moves what an option tells."""
    found = {word.key: word for word in words}
    for key, candidates in invocation.params.items():
        winner = candidates[0]
        present = found.get(key)
        if present is not None and present.origin == "tool" and present.where:
            raise UsageError(f"--params {key} contradicts {present.where}", got=str(winner.value), remedy="give one")
        found[key] = Word(key, _value(winner.value), winner.origin, winner.where)
    return list(found.values())


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "True", False: "False"}[value]
    return str(value)


def quoted(text: str) -> str:
    """Return a text as a value of a word."""
    if _PLAIN.fullmatch(text):
        return text
    return "'" + re.sub(r"(\\*)('|$)", _escaped, text) + "'"


def _escaped(match: re.Match[str]) -> str:
    """Return a quote with the backslashes before it: only there a backslash means anything."""
    return match[1] * 2 + ("\\'" if match[2] else "")
