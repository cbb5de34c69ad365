"""Shapes follow DLIO's rule to the last element."""

import numpy as np

from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.recipe import Recipe
from stoker.loader.dataset.shapes import payload_bytes, sample_spec, side_table

UNET3D = DatasetSpec("npz", 168, record_length_bytes=146600628, record_length_stdev_bytes=68341808)
COSMOFLOW = DatasetSpec("tfrecord", 524288, record_length_bytes=2828486, record_length_stdev_bytes=71311)


def test_unet3d_has_the_known_shapes() -> None:
    shapes = [sample_spec(UNET3D, index).shape for index in range(4)]
    assert shapes == [(15865, 14125), (7745, 12083), (13860, 10074), (12856, 12413)]
    assert payload_bytes(UNET3D, range(168)) == 25_285_981_919


def test_cosmoflow_has_the_known_shapes() -> None:
    shapes = [sample_spec(COSMOFLOW, index).shape for index in range(4)]
    assert shapes == [(1709, 1696), (1648, 1680), (1694, 1665), (1686, 1683)]


def test_the_validation_split_continues_the_sequence() -> None:
    valid = DatasetSpec("npz", 8, record_length_bytes=146600628, record_length_stdev_bytes=68341808, split="valid")
    assert sample_spec(valid, 0, files_before=168).shape == sample_spec(UNET3D, 168).shape
    assert payload_bytes(valid, range(8), files_before=168) == payload_bytes(UNET3D, range(168, 176))


def test_any_file_is_reached_in_any_order() -> None:
    draws = np.random.RandomState(10).normal(1681, 71311 / 2 / np.sqrt(2828486), 2 * 400_000).astype(np.int64)
    table = side_table(COSMOFLOW)
    assert table is not None
    for index in (399_999, 65_535, 65_536, 0, 262_144, 131_071):
        assert table[index] == tuple(draws[2 * index : 2 * index + 2])


def test_a_share_of_the_payload_is_the_sum_of_its_files() -> None:
    indices = range(65_530, 65_600, 7)
    expected = sum(sample_spec(COSMOFLOW, index).payload_bytes for index in indices)
    assert payload_bytes(COSMOFLOW, indices) == expected
    assert payload_bytes(COSMOFLOW, range(3, 100, 3)) == sum(
        sample_spec(COSMOFLOW, index).payload_bytes for index in range(3, 100, 3)
    )
    assert payload_bytes(COSMOFLOW, range(0)) == 0


def test_without_deviation_every_sample_is_a_square_of_elements() -> None:
    spec = DatasetSpec("npz", 4, record_length_bytes=114660.07, element_type="float32", samples_per_file=3)
    sample = sample_spec(spec, 2)
    assert sample.shape == (338, 338)
    assert payload_bytes(spec, range(4)) == 4 * 3 * 338 * 338 * 4


def test_record_dims_are_the_shape() -> None:
    assert sample_spec(DatasetSpec("npz", 4, record_dims=(3, 5, 7)), 0).shape == (3, 5, 7)


def test_the_prediction_is_exact_where_the_overhead_is_constant() -> None:
    spec = DatasetSpec("npz", 3, record_dims=(256, 256))
    assert Recipe(spec).predict().file_bytes == 3 * 66_034
    uneven = DatasetSpec("npz", 5, record_length_bytes=65536, record_length_stdev_bytes=9000)
    recipe = Recipe(uneven)
    assert recipe.predict().file_bytes == sum(len(chunk) for index in range(5) for chunk in recipe.chunks(index))


def test_the_prediction_is_scaled_where_the_overhead_grows() -> None:
    spec = DatasetSpec("csv", 4, record_dims=(200, 200))
    recipe = Recipe(spec)
    real = sum(len(chunk) for index in range(4) for chunk in recipe.chunks(index))
    assert abs(recipe.predict().file_bytes - real) < 0.02 * real
