"""jpeg and png keep the contract; jpeg as far as shape and type, since it keeps values only roughly."""

from stoker.testing.format_contract import FormatContract


class TestPng(FormatContract):
    name = "png"
    shapes = ((5, 7), (3,), (1, 1))
    dtypes = ("uint8", "float32")


class TestJpeg(FormatContract):
    name = "jpeg"
    shapes = ((5, 7), (3,), (1, 1))
    dtypes = ("uint8", "float32")
