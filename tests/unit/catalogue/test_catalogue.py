"""The catalogue holds the MLPerf templates, and the demand that follows from them."""

import msgspec
import pytest

from stoker.bench.workloads import catalogue
from stoker.core.errors import UnknownNameError
from stoker.core.plan import DatasetSpec, TrainingPlan
from stoker.core.units import GiB
from stoker.loader.dataset.recipe import Recipe

OFFERED = {
    "cosmoflow": ["a100", "h100"],
    "dlrm": ["b200", "mi355"],
    "flux": ["b200", "mi355"],
    "resnet50": ["a100", "h100"],
    "retinanet": ["b200", "mi355"],
    "unet3d": ["a100", "b200", "h100"],
}
# GiB/s of one accelerator at 100 % AU: whole samples, and what is read of them.
DEMAND = [
    ("unet3d", "a100", 1.50, 1.50),
    ("unet3d", "h100", 2.96, 2.96),
    ("unet3d", "b200", 5.90, 5.90),
    ("retinanet", "b200", 0.152, 0.152),
    ("retinanet", "mi355", 0.152, 0.152),
    ("resnet50", "a100", 0.098, 0.098),
    ("resnet50", "h100", 0.191, 0.191),
    ("cosmoflow", "a100", 0.478, 0.478),
    ("cosmoflow", "h100", 0.753, 0.753),
    ("dlrm", "b200", 30.97, 6.51),
    ("dlrm", "mi355", 20.64, 4.34),
    ("flux", "b200", 0.072, 0.072),
    ("flux", "mi355", 0.072, 0.072),
]


def test_every_model_and_accelerator_of_the_editions_is_offered() -> None:
    assert {model: catalogue.accelerators(model) for model in catalogue.models()} == OFFERED
    assert len(catalogue.entries()) == 13


@pytest.mark.parametrize(("model", "accelerator", "nominal_gib", "read_gib"), DEMAND)
def test_demand_at_full_utilisation(model: str, accelerator: str, nominal_gib: float, read_gib: float) -> None:
    entry = catalogue.entry(model, accelerator)
    assert entry.demand_nominal_bytes_per_second / GiB == pytest.approx(nominal_gib, abs=0.006)
    assert entry.demand_bytes_per_second / GiB == pytest.approx(read_gib, abs=0.006)


@pytest.mark.parametrize(
    ("model", "accelerator", "samples"),
    [("resnet50", "a100", 919.5), ("resnet50", "h100", 1785.7), ("retinanet", "b200", 504.7)],
)
def test_demand_in_samples(model: str, accelerator: str, samples: float) -> None:
    assert catalogue.entry(model, accelerator).demand_samples_per_second == pytest.approx(samples, abs=0.05)


def test_dlrm_reads_a_fifth_of_its_columns() -> None:
    entry = catalogue.entry("dlrm", "b200")
    columns = entry.parquet_columns()
    assert len(columns) == 200
    assert sum(column["read"] for column in columns) == 40
    assert entry.read_sample_bytes == 160
    assert entry.dataset().options["row_group_size"] == 6144


def test_status_differs_by_edition() -> None:
    assert catalogue.entry("unet3d", "h100").status == {"v2.0": "closed", "v3.0": "whatif"}
    assert catalogue.entry("unet3d", "b200").status == {"v3.0": "closed"}
    assert catalogue.entry("dlrm", "mi355").status == {"v3.0": "whatif"}
    for entry in catalogue.entries():
        assert set(entry.status) <= set(catalogue.EDITIONS)


def test_checkpoint_block_is_active_in_the_older_edition_only() -> None:
    block = catalogue.entry("unet3d", "a100").checkpoint
    assert block is not None
    assert (block.after_epoch, block.epochs_between, block.model_size_bytes) == (5, 2, 499_153_191)
    assert block.editions == ("v2.0",)
    assert catalogue.entry("resnet50", "a100").checkpoint is None


@pytest.mark.parametrize("entry", catalogue.entries(), ids=lambda entry: f"{entry.model}_{entry.accelerator}")
def test_every_dataset_can_be_made(entry: catalogue.CatalogueEntry) -> None:
    recipe = Recipe(entry.dataset())
    sample = recipe.sample_spec(0)
    if entry.columns:
        assert sample.sample_bytes == entry.record_length_bytes
    else:
        assert len(sample.shape) == 2


def test_training_plan_takes_the_template_and_the_ranks() -> None:
    entry = catalogue.entry("resnet50", "h100")
    plan = entry.training_plan(ranks=8, target_url="file:///data", files=16, seed=7)
    assert plan.dataset == entry.dataset(files=16)
    assert (plan.model, plan.accelerator, plan.ranks, plan.batch_size) == ("resnet50", "h100", 8, 400)
    assert plan.computation.mean_seconds() == 0.224
    assert (plan.read_threads, plan.decode_threads, plan.epochs, plan.au_threshold_ratio) == (8, 8, 5, 0.90)
    assert (plan.target_url, plan.seed, plan.order) == ("file:///data", 7, "shuffled")


def test_plans_survive_the_trip_through_json() -> None:
    for entry in catalogue.entries():
        plan = entry.training_plan(ranks=2)
        assert msgspec.json.decode(msgspec.json.encode(plan), type=TrainingPlan) == plan
        assert isinstance(plan.dataset, DatasetSpec)


@pytest.mark.parametrize(
    ("model", "accelerator", "told"),
    [
        ("unet3", "h100", ["unet3d", "known: cosmoflow"]),
        ("unet3d", "h10", ["h100", "a100, b200, h100"]),
        ("dlrm", "h100", ["b200, mi355"]),
    ],
)
def test_unknown_names_are_told_with_neighbour_and_list(model: str, accelerator: str, told: list[str]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        catalogue.entry(model, accelerator)
    assert all(word in str(caught.value) for word in told)


def test_costly_formats_are_decoded_by_as_many_threads_as_read() -> None:
    assert catalogue.entry("retinanet", "b200").training_plan(ranks=1).decode_threads == 8
    assert catalogue.entry("unet3d", "h100").training_plan(ranks=1).decode_threads == 1
    assert catalogue.decoders("jpeg", 4, 16) == 16
