"""Functions of many kinds, whose canonical bytes are compared between processes."""

import functools
import math

import numpy as np

SCALE = 3
TABLE = {"b": 1, "a": [2, 3], "c": frozenset({"x", "y", "z"})}
WEIGHTS = np.arange(6, dtype=np.float32).reshape(2, 3)


def plain(a, b):
    return a + b


def defaults(a, b=2, *, c="x", d=(1, 2.5, None)):
    return a, b, c, d


def keywords(*args, first=1, **rest):
    return args, first, rest


def positional(a, b, /, c):
    return a - b - c


def membership(word):
    return word in {"alpha", "beta", "gamma", "delta"}


def loops(n):
    total = 0
    for i in range(n):
        if i % 3 == 0:
            continue
        total += i
    return total


def catches(value):
    try:
        return 1 / value
    except ZeroDivisionError as error:
        raise ValueError("zero") from error
    finally:
        math.floor(2.5)


def with_block(path):
    with open(path) as file:
        return file.read()


def generator(n):
    for i in range(n):
        yield i * SCALE


async def coroutine(x):
    return await x


async def stream(x):
    async for item in x:
        yield item


def recursive(n):
    return 1 if n < 2 else n * recursive(n - 1)


def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


def make_adder(amount):
    def add(x):
        return x + amount

    return add


def make_counter():
    count = 0

    def step():
        nonlocal count
        count += 1
        return count

    return step


def make_selfish():
    def again(n):
        return again(n - 1) if n else None

    return again


def unfilled():
    def inner():
        return later

    made = inner
    if SCALE < 0:
        later = 1
    return made


def constants():
    return (1, -(2**80), 2.5, -0.0, 3j, "text", b"bytes", None, True, ..., (1, (2, (3,))))


def comprehension(xs):
    return {x: [y + 1 for y in range(x)] for x in xs if x}


def matcher(value):
    match value:
        case [1, *rest]:
            return rest
        case {"k": v}:
            return v
        case _:
            return None


def nested_lambda():
    return lambda x: lambda y: x + y


def uses_globals(x):
    return x * SCALE + len(TABLE) + WEIGHTS.sum()


def formatted(x):
    return f"{x!r:>10} and {x:.2f}"


@functools.lru_cache(maxsize=3)
def cached(x):
    return x


@functools.wraps(plain)
def wrapped(*args):
    return plain(*args)


class Model:
    factor = 2

    def __init__(self, size):
        self.size = size

    def forward(self, x):
        return helper(x) * self.factor

    @staticmethod
    def static(x):
        return x

    @property
    def double(self):
        return self.size * 2


def helper(x):
    return x + 1


FUNCTIONS = {
    "plain": plain,
    "defaults": defaults,
    "keywords": keywords,
    "positional": positional,
    "membership": membership,
    "loops": loops,
    "catches": catches,
    "with_block": with_block,
    "generator": generator,
    "coroutine": coroutine,
    "stream": stream,
    "recursive": recursive,
    "even": even,
    "adder": make_adder(5),
    "array_adder": make_adder(WEIGHTS),
    "counter": make_counter(),
    "selfish": make_selfish(),
    "unfilled": unfilled(),
    "constants": constants,
    "comprehension": comprehension,
    "matcher": matcher,
    "nested_lambda": nested_lambda,
    "inner_lambda": nested_lambda()(1),
    "uses_globals": uses_globals,
    "formatted": formatted,
    "cached": cached,
    "wrapped": wrapped,
    "partial": functools.partial(plain, 1, b=2),
    "method": Model(3).forward,
    "static": Model.static,
    "property": Model.double,
}


def digests():
    """Return the canonical bytes and the digest of each sample, as hexadecimal text."""
    import hashlib

    from stoker.pages.capture.canonical import code_digest, encode

    found = {
        name: [hashlib.sha256(encode(function)).hexdigest(), code_digest(function)]
        for name, function in FUNCTIONS.items()
    }
    values = hashlib.sha256(encode([TABLE, WEIGHTS, {3, 1, 2}, {1: 2, "x": 3}])).hexdigest()
    return {**found, "values": [values, code_digest(Model)]}
