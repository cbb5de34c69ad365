"""The columns of the two MLPerf Storage workloads that read Parquet, as the `columns` option takes them."""

from typing import Any, Final

_DLRM_COLUMNS: Final = (
    "hhddshsbhbsSdsbhsSShDdddhSshhsdSdshhdbbbhShSdbdddS"
    "sbbSssbsHSdhdbshbSHshShsSDhbsdbbsshbhbSbSSHSDdSHbh"
    "hdhsdhhsdsddbhhbBDsbhhbbbhbbsbhsdhhdhSddhSbbdsdSdd"
    "bbbdDSsbShShShdhdhsBdhbdbbbbhhBdddhdBbhSdbdsdSsddh"
)
"""One letter a column: b int8, h float16, s float32, d float64; a capital is read in training."""

_DLRM_TYPES: Final = {"b": "int8", "h": "float16", "s": "float32", "d": "float64"}
_FLUX_ELEMENTS: Final = {
    "t5_encodings": 524_328,
    "clip_encodings": 409,
    "mean": 8_232,
    "logvar": 8_232,
    "timestamp": 7,
}


def dlrm_columns() -> list[dict[str, Any]]:
    """Return the 200 columns of dlrm: 761 bytes a row, of which 40 columns with 160 bytes are read."""
    return [
        {"name": f"feature_{number:03d}", "dtype": _DLRM_TYPES[letter.lower()], "size": 1, "read": letter.isupper()}
        for number, letter in enumerate(_DLRM_COLUMNS)
    ]


def flux_columns() -> list[dict[str, Any]]:
    """Return the five float32 vector columns of flux: 541,208 elements, 2,164,832 bytes a row."""
    return [
        {"name": name, "dtype": "float32", "size": elements, "read": True} for name, elements in _FLUX_ELEMENTS.items()
    ]
