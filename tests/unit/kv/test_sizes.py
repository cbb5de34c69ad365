"""Bytes a token, shapes and the bounds that follow from them."""

import io

import numpy as np
import pytest

from stoker.bench.rules.mlperf.sizing_serving import kv_models
from stoker.core.kvcache import KvModel, KvPersona, KvPlan
from stoker.kv.content import HEADER_BYTES, array_header, payload_bytes

TABLE = {
    "tiny-1b": 24_576,
    "mistral-7b": 131_072,
    "llama2-7b": 524_288,
    "llama3.1-8b": 131_072,
    "llama3.1-70b-instruct": 327_680,
    "deepseek-v3": 70_272,
    "qwen3-32b": 262_144,
    "gpt-oss-120b": 73_728,
    "gpt-oss-20b": 49_152,
}


@pytest.mark.parametrize(("name", "wanted"), TABLE.items())
def test_bytes_of_a_token_are_those_of_the_published_table(name: str, wanted: int) -> None:
    model = kv_models()[name]
    assert model.bytes_per_token() == wanted
    assert payload_bytes(model.array_shape(256), "float16") == 256 * wanted
    assert payload_bytes(model.array_shape(7), "float32") == 7 * 2 * wanted


def test_70b_takes_two_and_a_half_times_what_8b_does() -> None:
    small, large = (kv_models()[name].bytes_per_token() for name in ("llama3.1-8b", "llama3.1-70b-instruct"))
    assert large / small == 2.5


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "bfloat16"])
@pytest.mark.parametrize("model", [KvModel(2, 32, 4, 2), KvModel(3, 64, 8, 8, mla_rank=12, mla_rope=4)])
def test_an_entry_is_an_array_file_that_numpy_reads(model: KvModel, dtype: str) -> None:
    shape = model.array_shape(5)
    header = array_header(shape, dtype)
    assert len(header) == HEADER_BYTES
    payload = bytes(range(256)) * 64
    read = np.load(io.BytesIO(header + payload[: payload_bytes(shape, dtype)]), allow_pickle=False)
    assert read.shape == shape and read.nbytes == payload_bytes(shape, dtype)
    assert read.tobytes() == payload[: read.nbytes]


def test_break_even_is_bytes_a_token_times_tokens_a_second() -> None:
    personas = {"one": KvPersona((1, 2), (1, 2), (0.1, 0.2))}
    plan = KvPlan(kv_models()["llama3.1-8b"], personas, prefill_tokens_per_second=25_000.0)
    assert plan.break_even_bytes_per_second == pytest.approx(3.2768e9)  # 8B on one GPU: 3.3 GB/s
    many = KvPlan(kv_models()["llama3.1-70b-instruct"], personas, prefill_tokens_per_second=23e3, tensor_parallel=8)
    assert many.break_even_bytes_per_second == pytest.approx(7.5e9, rel=0.01)


def test_pages_and_floors_of_the_published_bounds() -> None:
    page = kv_models()["llama3.1-8b"].bytes_per_token() * 256
    assert page == 32 << 20
    assert 7e9 / page == pytest.approx(209, rel=0.01)
    assert 10_000 * kv_models()["llama3.1-70b-instruct"].bytes_per_token() / 7e9 == pytest.approx(0.468, rel=0.01)
