"""Which rank writes which tensors into which files: pure, from the model's shape and the number of ranks.

Rank r of TP x PP x DP ranks is tensor rank r mod TP, pipeline stage r div TP mod PP and data rank r div (TP x PP); its
model-parallel rank is r mod (TP x PP). Layer 0 is the embedding (first stage), L + 1 the head and L + 2 the last norm
(last stage); the transformer's layers between are spread over the stages, the remainder to the first ones.

ZeRO decides who writes: without it (0) and with all of it (3) a rank's share of all its layers is one file; with 1 or
2 data rank 0 alone writes layers, a file each where there are several stages. The optimizer's state (master weights
and two moments, each with five rows of its own) is split over all ranks from stage 1 on.
"""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from stoker.core.checkpoints import ELEMENT_BYTES, ModelShape
from stoker.core.errors import UsageError

SUFFIX: Final = ".pt"
_MOMENTS: Final = ("master_weights", "first_moment", "second_moment")
_OWN_ROWS: Final = 5
_ZERO_STAGES: Final = range(4)
RANKS_MAX: Final = 1 << 20


class Tensor(msgspec.Struct, frozen=True):
    """A tensor in a file: `elements` of type `dtype`, `size_bytes` from `offset_bytes` on."""

    name: str
    dtype: str
    elements: int
    offset_bytes: int
    size_bytes: int


class ShardFile(msgspec.Struct, frozen=True):
    """A file of one rank: its tensors one after the other, and nothing else. `kind` is model or optimizer."""

    name: str
    kind: str
    size_bytes: int
    tensors: tuple[Tensor, ...]


class Place(NamedTuple):
    """Where a rank stands in the three parallel dimensions; `model` counts tensor and pipeline ranks together."""

    tensor: int
    pipeline: int
    data: int
    model: int


class Totals(NamedTuple):
    """A checkpoint's sums over all ranks, and the most that one rank writes."""

    model_bytes: int
    optimizer_bytes: int
    files: int
    rank_bytes_max: int

    @property
    def size_bytes(self) -> int:
        """Return the bytes of the whole checkpoint."""
        return self.model_bytes + self.optimizer_bytes


def check_shape(shape: ModelShape, ranks: int) -> None:
    """Raise UsageError for a shape that cannot be, or that so many ranks cannot hold."""
    for name in ("tensor", "pipeline", "attention_heads", "kv_heads"):
        if getattr(shape, name) < 1:
            raise UsageError(f"{name} of the model is no good", expected="at least 1", got=str(getattr(shape, name)))
    for name in ("layers", "hidden_size", "ffn_hidden_size", "vocab_size", "data", "blob_bytes"):
        if getattr(shape, name) < 0:
            raise UsageError(f"{name} of the model is no good", expected="at least 0", got=str(getattr(shape, name)))
    if min((0, *shape.layer_lengths, *shape.group_lengths)) < 0:
        raise UsageError("a tensor's length is negative", expected="at least 0")
    if shape.zero_stage not in _ZERO_STAGES:
        raise UsageError("ZeRO stage is no good", expected="0 to 3", got=str(shape.zero_stage))
    if not 0 < shape.scale_ratio <= 1:
        raise UsageError("scale is no good", expected="above 0, at most 1", got=f"{shape.scale_ratio:g}")
    for name in (shape.model_type, shape.optimizer_type):
        if name not in ELEMENT_BYTES:
            raise UsageError("element type is unknown", where=name, expected=", ".join(ELEMENT_BYTES))
    _check_ranks(shape, ranks)


def _check_ranks(shape: ModelShape, ranks: int) -> None:
    parallel = shape.tensor * shape.pipeline
    if not 1 <= ranks <= RANKS_MAX:
        raise UsageError("number of ranks is no good", expected=f"1 to {RANKS_MAX}", got=str(ranks))
    if shape.layers and shape.pipeline > max(shape.layers, 1):
        raise UsageError(
            "more pipeline stages than layers", expected=f"at most {shape.layers}", got=str(shape.pipeline)
        )
    if shape.data:
        if ranks > parallel * shape.data:
            raise UsageError(
                "more ranks than the model is spread over",
                expected=f"at most {parallel * shape.data}",
                got=str(ranks),
            )
    elif ranks % parallel:
        raise UsageError(
            "ranks do not fit the model's parallelism",
            expected=f"a multiple of {parallel} (tensor {shape.tensor} x pipeline {shape.pipeline})",
            got=str(ranks),
            remedy="change the number of ranks, or write a declared subset",
        )


def place_of(shape: ModelShape, rank: int) -> Place:
    """Return where the rank stands."""
    parallel = shape.tensor * shape.pipeline
    return Place(
        tensor=rank % shape.tensor,
        pipeline=rank // shape.tensor % shape.pipeline,
        data=rank // parallel,
        model=rank % parallel,
    )


def parameters(shape: ModelShape) -> int:
    """Return the parameters of the transformer: 2Vd + d + L(2d + d(d + 2k) + dd + 3df), k = d div heads x kv heads."""
    d, f, k = shape.hidden_size, shape.ffn_hidden_size, _kv_size(shape)
    return 2 * shape.vocab_size * d + d + shape.layers * (2 * d + d * (d + 2 * k) + d * d + 3 * d * f)


def _kv_size(shape: ModelShape) -> int:
    return shape.hidden_size // shape.attention_heads * shape.kv_heads


def stage_layers(shape: ModelShape, stage: int) -> list[int]:
    """Return the numbers of the layers of a pipeline stage, embedding, head and last norm included."""
    each, more = divmod(shape.layers, shape.pipeline)
    first = 1 + stage * each + min(stage, more)
    layers = list(range(first, first + each + (stage < more)))
    before = [0] if stage == 0 else []
    after = [shape.layers + 1, shape.layers + 2] if stage == shape.pipeline - 1 else []
    return [*before, *layers, *after] if not shape.layer_lengths else layers


def rank_files(shape: ModelShape, ranks: int, rank: int) -> tuple[ShardFile, ...]:
    """Return the files of a rank in the order they are written: the blob, the layers, the optimizer.

    Raises UsageError as `check_shape` does.
    """
    check_shape(shape, ranks)
    place = place_of(shape, rank)
    files = []
    if shape.zero_stage == 0 and place.data:
        return ()
    if shape.blob_bytes:
        files.append(_file(f"model_states-{rank}", "model", [("model", "uint8", shape.blob_bytes)], shape))
    if shape.layers and (shape.zero_stage in (0, 3) or place.data == 0):
        files += _model_files(shape, ranks, place)
    optimizer = list(_optimizer(shape, ranks))
    if optimizer:
        name = f"zero_pp_rank_{place.data}_mp_rank_{place.model}_optim_states"
        files.append(_file(name, "optimizer", optimizer, shape))
    return tuple(files)


def _model_files(shape: ModelShape, ranks: int, place: Place) -> Iterator[ShardFile]:
    layers = stage_layers(shape, place.pipeline)
    tensors = {layer: list(_layer(shape, ranks, layer)) for layer in layers}
    if shape.zero_stage in (1, 2) and shape.pipeline > 1:
        for layer in layers:
            yield _file(f"layer_{layer}-model_{place.model}_model_states", "model", tensors[layer], shape)
        return
    name = f"zero_pp_rank_{place.data}_mp_rank_{place.model}_model_states"
    if shape.zero_stage in (1, 2):
        name = f"model_{place.model}_model_states"
    yield _file(name, "model", [each for layer in layers for each in tensors[layer]], shape)


def _layer(shape: ModelShape, ranks: int, layer: int) -> Iterator[tuple[str, str, int]]:
    """Yield (name, dtype, elements) of a layer's tensors as one rank has them."""
    kind, name = shape.model_type, f"layer.{layer}"
    if shape.layer_lengths:
        yield from ((f"{name}.{number}", kind, length) for number, length in enumerate(shape.layer_lengths))
        return
    d, f, tensor = shape.hidden_size, shape.ffn_hidden_size, shape.tensor
    split = shape.replicas(ranks) if shape.zero_stage == 3 else 1
    if layer == 0:
        yield f"{name}.embedding", kind, shape.vocab_size * d // tensor // split
    elif layer == shape.layers + 1:
        yield f"{name}.head", kind, shape.vocab_size * d // tensor // split
    elif layer == shape.layers + 2:
        yield f"{name}.norm", kind, d // split
    else:
        yield f"{name}.input_norm", kind, d // split
        yield f"{name}.attention.qkv", kind, d * (d + 2 * _kv_size(shape)) // tensor // split
        yield f"{name}.attention.out", kind, d * d // tensor // split
        yield f"{name}.output_norm", kind, d // split
        yield f"{name}.feed_forward.in", kind, 2 * d * f // tensor // split
        yield f"{name}.feed_forward.out", kind, d * f // tensor // split


def _optimizer(shape: ModelShape, ranks: int) -> Iterator[tuple[str, str, int]]:
    if shape.group_lengths:
        for number, length in enumerate(shape.group_lengths):
            yield f"group.{number}.a", "int8", length
            yield f"group.{number}.b", "int8", length
        return
    if not shape.layers or shape.layer_lengths:
        return
    replicas = shape.replicas(ranks) if shape.zero_stage else 1
    share = parameters(shape) // (replicas * shape.tensor * shape.pipeline)
    for name in _MOMENTS:
        yield name, shape.optimizer_type, share
        yield f"{name}.own", shape.optimizer_type, _OWN_ROWS * shape.hidden_size


def _file(name: str, kind: str, tensors: list[tuple[str, str, int]], shape: ModelShape) -> ShardFile:
    placed, offset = [], 0
    for tensor, dtype, elements in tensors:
        kept = _scaled(elements, shape.scale_ratio)
        size = kept * ELEMENT_BYTES[dtype]
        placed.append(Tensor(tensor, dtype, kept, offset, size))
        offset += size
    return ShardFile(f"{name}{SUFFIX}", kind, offset, tuple(placed))


def _scaled(elements: int, ratio: float) -> int:
    return elements if ratio == 1.0 or elements == 0 else max(1, math.floor(elements * ratio))


def totals(shape: ModelShape, ranks: int) -> Totals:
    """Return the sums over all ranks. Raises UsageError as `check_shape` does."""
    check_shape(shape, ranks)
    sums, files, most = {"model": 0, "optimizer": 0}, 0, 0
    known: dict[tuple[int, bool, int], tuple[ShardFile, ...]] = {}
    for rank in range(ranks):
        place = place_of(shape, rank)
        # Sizes depend on the stage and on who writes layers; ranks alike in both write alike.
        alike = (place.pipeline, place.data == 0, 0 if shape.zero_stage else place.data)
        if alike not in known:
            known[alike] = rank_files(shape, ranks, rank)
        mine = known[alike]
        for file in mine:
            sums[file.kind] += file.size_bytes
        files += len(mine)
        most = max(most, sum(file.size_bytes for file in mine))
    return Totals(sums["model"], sums["optimizer"], files, most)


def checkpoint_id(number: int, epoch: int = 1) -> str:
    """Return the name of a checkpoint's folder: `global_epoch1_step3`."""
    return f"global_epoch{epoch}_step{number}"
