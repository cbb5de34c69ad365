"""npz, npy, hdf5, csv: the formats that tell shape or numbers themselves keep the contract."""

from stoker.testing.format_contract import FormatContract


class TestNpz(FormatContract):
    name = "npz"
    variants = ({}, {"compression": "zip"}, {"compression": "zip", "compression_level": 1}, {"verify": True})


class TestNpy(FormatContract):
    name = "npy"
    variants = ({}, {"compression": "none"})


class TestHdf5(FormatContract):
    name = "hdf5"
    shapes = ((4, 7), (4,), (2, 3, 4))
    variants = ({}, {"compression": "gzip", "compression_level": 1}, {"compression": "lzf"}, {"num_dset_per_record": 2})
    flips = 100


class TestCsv(FormatContract):
    name = "csv"
    variants = ({}, *({"compression": name} for name in ("gzip", "bz2", "xz", "zip")))
    flips = 100
