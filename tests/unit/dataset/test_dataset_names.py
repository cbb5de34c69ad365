"""Files are named as DLIO names them, by arithmetic alone."""

import pytest

from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.naming import FileKeys, file_index, file_key
from stoker.loader.dataset.recipe import Recipe, check_spec


def test_numbers_are_padded_to_the_digits_of_the_count() -> None:
    sixteen = FileKeys(DatasetSpec("npz", 16))
    assert (sixteen[0], sixteen[15]) == ("train/img_00_of_16.npz", "train/img_15_of_16.npz")
    assert file_key(DatasetSpec("npz", 8), 0) == "train/img_0_of_8.npz"
    assert file_key(DatasetSpec("tfrecord", 8, split="valid", prefix="part"), 7) == "valid/part_7_of_8.tfrecord"


def test_subfolders_take_files_in_turn() -> None:
    assert file_key(DatasetSpec("npz", 16, subfolders=2), 3) == "train/1/img_03_of_16.npz"
    assert file_key(DatasetSpec("npz", 16, subfolders=10), 12) == "train/02/img_12_of_16.npz"
    assert file_key(DatasetSpec("npz", 16, subfolders=1), 12) == "train/img_12_of_16.npz"


def test_an_index_outside_the_split_has_no_name() -> None:
    for index in (-1, 16):
        with pytest.raises(IndexError):
            file_key(DatasetSpec("npz", 16), index)


def test_fifty_million_names_cost_nothing() -> None:
    keys = FileKeys(DatasetSpec("npz", 50_000_000, subfolders=5000))
    assert len(keys) == 50_000_000
    assert keys[49_999_999] == "train/4999/img_49999999_of_50000000.npz"
    assert keys.position(keys[31_415_926]) == 31_415_926
    assert len(keys[7::64]) == 781_250


def test_slices_are_computed_too() -> None:
    keys = FileKeys(DatasetSpec("npz", 16))
    share = keys[3::4]
    assert list(share) == [keys[index] for index in (3, 7, 11, 15)]
    assert share.position(keys[7]) == 1
    assert share.position(keys[8]) is None
    assert keys[-1] == keys[15]
    assert list(keys[:0]) == []


@pytest.mark.parametrize(
    "key",
    [
        "train/img_16_of_16.npz",
        "train/img_1_of_16.npz",
        "train/img_001_of_16.npz",
        "valid/img_01_of_16.npz",
        "train/x/img_01_of_16.npz",
        "train/img_01_of_16.npz.idx",
        "train/img_01_of_17.npz",
        "train/img_\u0661\u0662_of_16.npz",
        "img_01_of_16.npz",
        "",
    ],
)
def test_a_foreign_name_has_no_index(key: str) -> None:
    spec = DatasetSpec("npz", 16)
    assert file_index(spec, key) is None
    assert key not in FileKeys(spec)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prefix", "../up"),
        ("prefix", ""),
        ("split", ".."),
        ("split", ".stoker"),
        ("split", "a/b"),
        ("files", 0),
        ("samples_per_file", 0),
        ("subfolders", -1),
        ("subfolders", 17),
        ("record_length_bytes", 0.0),
        ("record_length_bytes", float("nan")),
        ("record_length_stdev_bytes", -1.0),
        ("record_dims", (4, 0)),
    ],
)
def test_a_spec_that_no_dataset_can_have_is_refused_by_name(field: str, value: object) -> None:
    spec = DatasetSpec(**{"format": "npz", "files": 16, field: value})
    with pytest.raises(UsageError, match=f"dataset.{field}"):
        check_spec(spec)


def test_a_fixed_shape_that_varies_is_refused() -> None:
    with pytest.raises(UsageError, match="record_dims"):
        check_spec(DatasetSpec("npz", 16, record_dims=(4, 4), record_length_stdev_bytes=5.0))


def test_content_that_no_element_type_can_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="element type"):
        Recipe(DatasetSpec("npz", 16, element_type="datetime64[s]"))
