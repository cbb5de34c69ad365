"""Vectors from a recipe: whatever way they are asked for, on any machine, the same bytes."""

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.core.vectors import DISTRIBUTIONS, Recipe
from stoker.vectors.making import chunks, digest, make, make_queries


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("rows", [1, 7, 256, 300, 1000])
def test_the_size_of_a_chunk_does_not_show(distribution: str, rows: int) -> None:
    recipe = Recipe(1000, 24, distribution, seed=5)
    whole = make(recipe, 0, 1000)
    parts = [vectors for _, vectors in chunks(recipe, 0, 1000, rows)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert np.array_equal(make(recipe, 613, 40), whole[613:653])


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        ("uniform", "6c1e46e77f115839c4a5a186d18782e5"),
        ("normal", "40e7adffc3870ab139a451975e75f93a"),
        ("zipfian", "a1a6db9e6696353c1b0d57f37d5ddba9"),
        ("clustered", "537066683390b071eb56fc9ed9dc8e65"),
    ],
)
def test_the_bytes_are_those_of_every_machine(distribution: str, expected: str) -> None:
    """Made once and kept: another processor, or another release of NumPy, that made others would show here."""
    assert digest(make(Recipe(600, 48, distribution, seed=42), 0, 600)) == expected


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_vectors_have_length_one_and_follow_the_seed(distribution: str) -> None:
    made = make(Recipe(300, 32, distribution, seed=1), 0, 300)
    assert np.allclose(np.linalg.norm(made, axis=1), 1, atol=1e-6)
    assert not np.array_equal(made, make(Recipe(300, 32, distribution, seed=2), 0, 300))
    assert len(np.unique(made, axis=0)) == 300


def test_uniform_vectors_lie_in_one_orthant_and_clustered_ones_have_neighbours() -> None:
    uniform = make(Recipe(400, 256, "uniform"), 0, 400)
    clustered = make(Recipe(400, 256, "clustered"), 0, 400)
    cosines = (uniform @ uniform.T)[~np.eye(400, dtype=bool)]
    assert uniform.min() >= 0 and 0.7 < cosines.mean() < 0.8 and cosines.std() < 0.03
    near = clustered @ clustered.T - 2 * np.eye(400)
    assert np.median(near.max(axis=1)) > 0.7 and abs(np.median(near)) < 0.1


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_queries_are_held_out(distribution: str) -> None:
    recipe = Recipe(500, 32, distribution, seed=9)
    queries = make_queries(recipe, 300, seed=1009)
    assert np.array_equal(queries[:10], make_queries(recipe, 10, seed=1009))
    both = np.concatenate((make(recipe, 0, 500), queries))
    assert len(np.unique(both, axis=0)) == 800


@pytest.mark.parametrize("recipe", [Recipe(0, 8), Recipe(8, 0), Recipe(8, 8, "bell"), Recipe(8, 1 << 17)])
def test_a_recipe_that_makes_nothing_is_refused(recipe: Recipe) -> None:
    with pytest.raises(UsageError):
        make(recipe, 0, 1)
