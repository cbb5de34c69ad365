"""Canonical bytes of code: exact round trips, equal in every process, moved by what a function does alone."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import capture_code_samples as samples
import pytest

from stoker.core.errors import UsageError
from stoker.pages.capture.canonical import code_digest, decode, encode, encode_text, environment_digest
from stoker.pages.capture.tagged import Record, pack, unpack
from stoker.pages.errors import FormatError

HERE = Path(__file__).parent


def function_of(source: str, name: str = "f", file: str = "a.py", **names: object) -> types.FunctionType:
    space = {"__name__": "made", **names}
    exec(compile(source, file, "exec"), space)
    return space[name]


def described(function: object) -> Record:
    return decode(encode(function))["parts"][0]


def test_there_are_enough_samples() -> None:
    assert len(samples.FUNCTIONS) >= 20


@pytest.mark.parametrize("name", sorted(samples.FUNCTIONS))
def test_function_survives_the_round_trip(name: str) -> None:
    data = encode(samples.FUNCTIONS[name])
    description = decode(data)
    assert encode(description) == data
    assert isinstance(description, Record)


def test_description_tells_what_is_in_a_function() -> None:
    record = described(samples.defaults)
    assert record["name"] == "defaults"
    assert record["defaults"] == (2,)
    assert record["keyword_defaults"] == {"c": "x", "d": (1, 2.5, None)}
    assert record["code"]["code"] == samples.defaults.__code__.co_code
    assert record["code"]["variables"] == ("a", "b", "c", "d")
    assert described(samples.FUNCTIONS["adder"])["closure"] == {"amount": 5}
    assert described(samples.FUNCTIONS["array_adder"])["closure"]["amount"]["shape"] == (2, 3)
    assert described(samples.FUNCTIONS["unfilled"])["closure"] == {"later": Record("empty", {})}


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_other_processes_make_the_same_bytes(hash_seed: str) -> None:
    code = "import json, capture_code_samples; print(json.dumps(capture_code_samples.digests()))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    ).stdout
    assert json.loads(told) == samples.digests()


def test_place_of_the_source_does_not_count() -> None:
    source = "def f(a):\n    return [a for _ in range(3)]\n"
    first, moved = function_of(source), function_of("\n\n\n# moved\n" + source, file="elsewhere/b.py")
    assert encode(first) == encode(moved)
    assert code_digest(first) == code_digest(moved)


@pytest.mark.parametrize(
    "changed",
    [
        "def f(a, b=1): return a - b",
        "def f(a, b=2): return a + b",
        "def f(a, c=1): return a + c",
        "def f(a, *, b=1): return a + b",
        "def f(a, b=1.0): return a + b",
        "def f(a, b=True): return a + b",
    ],
)
def test_what_a_function_does_counts(changed: str) -> None:
    assert encode(function_of("def f(a, b=1): return a + b")) != encode(function_of(changed))


def test_closures_count() -> None:
    assert encode(samples.make_adder(1)) == encode(samples.make_adder(1))
    assert encode(samples.make_adder(1)) != encode(samples.make_adder(2))


def test_digest_covers_loaded_globals_and_called_functions() -> None:
    source = "def g(x): return x * K\ndef f(x): return g(x)"
    digest = code_digest(function_of(source, K=1))
    assert digest == code_digest(function_of(source, K=1, unrelated=5))
    assert digest != code_digest(function_of(source, K=2))
    assert digest != code_digest(function_of(source.replace("x * K", "K * x"), K=1))
    assert encode(function_of(source, K=1)) == encode(function_of(source, K=2))


def test_digest_of_functions_that_call_each_other_ends() -> None:
    assert code_digest(samples.even) != code_digest(samples.odd)


def test_digest_of_a_class_covers_its_members_and_what_they_call() -> None:
    source = "def g(x): return x\nclass f:\n    def forward(self, x): return g(x)"
    digest = code_digest(function_of(source))
    assert digest == code_digest(function_of(source))
    assert digest != code_digest(function_of(source.replace("return x\n", "return -x\n")))


def test_environment_digest_tells_packages_apart() -> None:
    assert environment_digest() == environment_digest()
    assert environment_digest("msgspec") != environment_digest()
    with pytest.raises(UsageError, match="not installed"):
        environment_digest("no-such-package-anywhere")


def test_text_is_kept_as_it_is() -> None:
    text = "// ptx\r\n.version 8.0\n\tret;\n\ud800"
    data = encode_text(text, "ptx")
    assert decode(data) == Record("text", {"language": "ptx", "text": text})
    assert encode(decode(data)) == data


VALUES = [
    None,
    True,
    ...,
    0,
    -1,
    127,
    128,
    -128,
    -129,
    2**200,
    0.0,
    float("inf"),
    1j,
    "",
    "ä\ud800",
    b"\x00",
    (),
    [],
    {},
    {"b": [1], "a": (2,)},
    Record("kind", {"x": Record("inner", {})}),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plain_values_survive(value: object) -> None:
    assert unpack(pack(value)) == value
    assert type(unpack(pack(value))) is type(value)


def test_values_that_compare_equal_are_told_apart() -> None:
    assert len({pack(value) for value in (1, True, 1.0, 1 + 0j, "1", b"1", (1,), [1])}) == 8
    assert pack(0.0) != pack(-0.0)
    assert pack(float("nan")) == pack(float("nan"))


def test_values_that_hold_themselves_or_nest_too_deep_are_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(UsageError, match="holds itself"):
        encode(loop)
    deep: object = 1
    for _ in range(200):
        deep = (deep,)
    with pytest.raises(UsageError, match="deep"):
        encode(deep)
    with pytest.raises(UsageError, match="deep"):
        pack(deep)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"s\xff\xff\xff\xff",
        b"s\x01\x00\x00\x00\xff",
        b"t\xff\xff\xff\xff",
        b"i\x02\x00\x00\x00\x01\x00",
        b"i\x00\x00\x00\x00",
        b"NN",
        b"m\x01\x00\x00\x00NN",
        b"m\x02\x00\x00\x00" + pack("b") + b"N" + pack("a") + b"N",
        b"m\x02\x00\x00\x00" + pack("a") + b"N" + pack("a") + b"N",
        b"RN" + pack({}),
        b"t\x01\x00\x00\x00" * 500 + b"N",
    ],
    ids=range(13),
)
def test_bytes_that_are_not_canonical_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        unpack(data)


def test_every_cut_is_refused() -> None:
    data = encode(samples.loops)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            decode(data[:end])


def test_flipped_bytes_never_pass_as_another_form() -> None:
    data = encode(samples.membership)
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 0x55
        try:
            value = decode(bytes(broken))
        except FormatError:
            continue
        assert encode(value) == bytes(broken)
