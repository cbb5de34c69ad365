"""parquet keeps the contract: as one column of bytes, in every compression, and as columns of many types."""

import numpy as np

from stoker.formats.parquet_columns import parse_columns, split_rows
from stoker.testing.format_contract import FormatContract

_COLUMNS = [
    {"name": "price", "dtype": "float32"},
    {"name": "left_out", "dtype": "int64", "read": False},
    {"name": "codes", "dtype": "int8", "size": 3},
    {"name": "one", "dtype": "uint8"},
    {"name": "half", "dtype": "float16", "size": 2},
    {"name": "yes", "dtype": "bool"},
    {"name": "left_out_too", "dtype": "list", "size": 4, "read": False},
    {"name": "word", "dtype": "string", "size": 5},
    {"name": "blob", "dtype": "binary", "size": 6},
    {"name": "vector", "dtype": "list", "size": 2},
]


class TestParquet(FormatContract):
    name = "parquet"
    variants = ({}, {"compression": "zstd"}, {"row_group_size": 2}, {"verify": True})
    flips = 100


class TestParquetColumns(FormatContract):
    name = "parquet"
    shapes = ((761,),)
    dtypes = ("uint8",)
    sample_counts = (1, 5)
    variants = ({"columns": _COLUMNS}, {"columns": _COLUMNS, "row_group_size": 2, "compression": "snappy"})
    flips = 100

    def check_samples(self, file, blocks):
        columns = parse_columns(_COLUMNS)
        rows = np.stack([self.content(file.spec, index) for index in range(file.spec.samples)])
        wanted = split_rows(rows, columns)
        position = 0
        for _, block in blocks:
            assert list(block.columns) == [column.name for column in columns if column.read]
            for name, values in block.columns.items():
                part = wanted[name][position : position + block.samples]
                assert values.dtype == part.dtype
                assert values.tobytes() == part.tobytes()
            position += block.samples
        assert position == file.spec.samples
