"""Which rank writes what, to the byte: held against the rules' formula, known vectors and its own sums."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import RULES, tiny

from stoker.bench.rules.mlperf.formulas import checkpoint_bytes
from stoker.bench.rules.mlperf.tables import models
from stoker.checkpoint.layout import (
    check_shape,
    checkpoint_id,
    parameters,
    place_of,
    rank_files,
    stage_layers,
    totals,
)
from stoker.core.checkpoints import ELEMENT_BYTES, ModelShape
from stoker.core.errors import UsageError

FILES = {"llama3-8b": 16, "llama3-70b": 128, "llama3-405b": 1544, "llama3-1t": 2072}
GIB = 1 << 30


@pytest.mark.parametrize("name", RULES)
def test_the_rules_models_have_their_bytes_and_files(name: str) -> None:
    shape, ranks = RULES[name]
    found = totals(shape, ranks)
    assert found.files == FILES[name]
    assert found.size_bytes == checkpoint_bytes(models().checkpointing[name])


def test_published_sizes_are_met() -> None:
    sizes = {name: totals(*RULES[name]).size_bytes / GIB for name in RULES}
    assert sizes == pytest.approx(
        {"llama3-8b": 104.70452, "llama3-70b": 911.21213, "llama3-405b": 5292.25, "llama3-1t": 15426.59}, rel=1e-6
    )


@pytest.mark.parametrize("name", RULES)
def test_sums_are_those_of_every_ranks_files(name: str) -> None:
    shape, ranks = RULES[name]
    every = [rank_files(shape, ranks, rank) for rank in range(ranks)]
    names = [file.name for files in every for file in files]
    found = totals(shape, ranks)
    assert len(set(names)) == len(names) == found.files
    assert sum(file.size_bytes for files in every for file in files) == found.size_bytes
    assert max(sum(file.size_bytes for file in files) for files in every) == found.rank_bytes_max


def test_names_of_zero_3_and_zero_1() -> None:
    assert [file.name for file in rank_files(*RULES["llama3-8b"], 5)] == [
        "zero_pp_rank_5_mp_rank_0_model_states.pt",
        "zero_pp_rank_5_mp_rank_0_optim_states.pt",
    ]
    shape, ranks = RULES["llama3-405b"]
    first = [file.name for file in rank_files(shape, ranks, 3)]
    assert first == [f"layer_{layer}-model_3_model_states.pt" for layer in range(5)] + [
        "zero_pp_rank_0_mp_rank_3_optim_states.pt"
    ]
    last = [file.name for file in rank_files(shape, ranks, 255)]
    assert last[-4:] == [
        "layer_126-model_255_model_states.pt",
        "layer_127-model_255_model_states.pt",
        "layer_128-model_255_model_states.pt",
        "zero_pp_rank_0_mp_rank_255_optim_states.pt",
    ]
    assert [file.name for file in rank_files(shape, ranks, 256)] == ["zero_pp_rank_1_mp_rank_0_optim_states.pt"]


def test_a_known_small_model() -> None:
    assert parameters(tiny()) == 22_688
    one = rank_files(tiny(zero_stage=1), 2, 0)
    assert [file.name for file in one] == ["model_0_model_states.pt", "zero_pp_rank_0_mp_rank_0_optim_states.pt"]
    assert one[0].size_bytes == 2 * 22_688
    assert one[1].size_bytes == 3 * 4 * (22_688 // 2 + 5 * 32)
    assert [file.kind for file in rank_files(tiny(zero_stage=1), 2, 1)] == ["optimizer"]
    zero_0 = [rank_files(tiny(), 2, rank) for rank in range(2)]
    assert zero_0[1] == ()
    assert zero_0[0][1].size_bytes == 3 * 4 * (22_688 + 5 * 32)
    assert rank_files(tiny(zero_stage=3), 2, 1)[0].size_bytes == 22_688
    split = tiny(zero_stage=1, pipeline=2)
    assert [stage_layers(split, stage) for stage in (0, 1)] == [[0, 1], [2, 3, 4]]


def test_tensors_follow_each_other_and_have_their_types() -> None:
    for file in rank_files(tiny(zero_stage=3, model_type="fp32", optimizer_type="fp64"), 2, 0):
        offset = 0
        for tensor in file.tensors:
            assert tensor.offset_bytes == offset
            assert tensor.size_bytes == tensor.elements * ELEMENT_BYTES[tensor.dtype]
            offset += tensor.size_bytes
        assert offset == file.size_bytes
        assert {tensor.dtype for tensor in file.tensors} == {"fp32" if file.kind == "model" else "fp64"}


def test_a_blob_layers_of_given_lengths_and_groups() -> None:
    blob = ModelShape(blob_bytes=1000, zero_stage=1)
    assert [(file.name, file.size_bytes) for file in rank_files(blob, 2, 1)] == [("model_states-1.pt", 1000)]
    assert rank_files(ModelShape(blob_bytes=1000), 2, 1) == ()
    layers = ModelShape(layers=3, layer_lengths=(10, 20), zero_stage=1, group_lengths=(5, 7))
    assert [(file.name, file.size_bytes) for file in rank_files(layers, 1, 0)] == [
        ("model_0_model_states.pt", 3 * 30 * 2),
        ("zero_pp_rank_0_mp_rank_0_optim_states.pt", 2 * 12),
    ]


def test_scaling_keeps_files_and_tensors() -> None:
    shape, ranks = RULES["llama3-8b"]
    small = ModelShape(**{name: getattr(shape, name) for name in shape.__struct_fields__} | {"scale_ratio": 0.001})
    whole, cut = rank_files(shape, ranks, 2), rank_files(small, ranks, 2)
    assert [file.name for file in cut] == [file.name for file in whole]
    assert [len(file.tensors) for file in cut] == [len(file.tensors) for file in whole]
    assert totals(small, ranks).size_bytes == pytest.approx(totals(shape, ranks).size_bytes / 1000, rel=0.01)
    assert min(tensor.elements for file in cut for tensor in file.tensors) >= 1


def test_a_subset_writes_what_the_same_ranks_write_of_the_whole() -> None:
    shape, ranks = RULES["llama3-70b"]
    pinned = ModelShape(**{name: getattr(shape, name) for name in shape.__struct_fields__} | {"data": 8})
    assert [rank_files(pinned, 8, rank) for rank in range(8)] == [rank_files(shape, ranks, rank) for rank in range(8)]


@given(
    tensor=st.integers(1, 4),
    pipeline=st.integers(1, 4),
    data=st.integers(1, 4),
    layers=st.integers(4, 9),
    stage=st.integers(0, 3),
)
def test_any_layout_is_whole(tensor: int, pipeline: int, data: int, layers: int, stage: int) -> None:
    shape = tiny(layers=layers, tensor=tensor, pipeline=pipeline, zero_stage=stage)
    ranks = tensor * pipeline * data
    every = [rank_files(shape, ranks, rank) for rank in range(ranks)]
    names = [file.name for files in every for file in files]
    assert len(set(names)) == len(names)
    found = totals(shape, ranks)
    assert found.files == len(names)
    assert found.size_bytes == sum(file.size_bytes for files in every for file in files)
    assert [layer for number in range(pipeline) for layer in stage_layers(shape, number)] == [
        *range(layers + 1),
        layers + 1,
        layers + 2,
    ]
    places = {place_of(shape, rank) for rank in range(ranks)}
    assert len(places) == ranks
    assert {(place.tensor, place.pipeline) for place in places} == {
        (t, p) for t in range(tensor) for p in range(pipeline)
    }


@pytest.mark.parametrize(
    ("changes", "ranks", "told"),
    [
        ({"tensor": 3}, 4, "multiple of 3"),
        ({"pipeline": 3}, 3, "more pipeline stages than layers"),
        ({"data": 2}, 3, "more ranks"),
        ({"zero_stage": 4}, 1, "0 to 3"),
        ({"scale_ratio": 0.0}, 1, "above 0"),
        ({"scale_ratio": 1.5}, 1, "at most 1"),
        ({"model_type": "fp8"}, 1, "fp8"),
        ({"hidden_size": -1}, 1, "at least 0"),
        ({"attention_heads": 0}, 1, "at least 1"),
        ({"layer_lengths": (-4,)}, 1, "at least 0"),
        ({}, 0, "1 to"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object], ranks: int, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        check_shape(tiny(**changes), ranks)


def test_ids() -> None:
    assert checkpoint_id(3) == "global_epoch1_step3"
    assert checkpoint_id(9, epoch=2) == "global_epoch2_step9"
