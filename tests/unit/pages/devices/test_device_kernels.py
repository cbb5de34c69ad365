"""All sets of kernels give the bytes that the log has, and that NumPy and the host's own kernels give."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash

from stoker.core.errors import MissingExtraError, UsageError
from stoker.kernels.deltas import two_level_apply, two_level_diff
from stoker.kernels.wiring import diff_elements
from stoker.pages.devices import kernels as sets
from stoker.pages.devices.host_kernels import bfloat16_bits
from stoker.pages.devices.kernels import kernels_for
from stoker.pages.devices.tiles import Columns, TileTable, columns_of, payloads_of
from stoker.pages.errors import DeviceError, InvalidDelta

torch = pytest.importorskip("torch", reason="the package torch is not installed")

SIZES = [1, 7, 8, 63, 64, 65, 4095, 4096, 4097, 8192, 10_000]
RATIOS = [0.0, 0.002, 0.05, 0.5, 1.0]


def laid_out(sizes, *, gap: int = 256):
    """Return places of pages in a slab, one behind the other with a gap, and the slab's bytes."""
    places, at = [], 0
    for size in sizes:
        places.append((at, size))
        at += -(-size // 256) * 256 + gap
    return places, -(-at // 4096) * 4096 + 4096


def images(total: int, ratio: float, seed: int = 3):
    chance = np.random.default_rng(seed)
    base = chance.integers(0, 256, total, np.uint8)
    fresh = np.where(chance.random(total) < ratio, base ^ chance.integers(1, 256, total, np.uint8), base)
    return base, fresh


def on(device: str, array: np.ndarray):
    return torch.from_numpy(array.copy()).to(device)


def host(columns: Columns) -> Columns:
    return Columns(columns.blob.cpu().numpy(), columns.dirty_lines, columns.changed_bytes)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("gap", [0, 256])
def test_compare_gives_the_payloads_of_the_log(kernels, device, ratio, gap):
    places, total = laid_out(SIZES, gap=gap)
    base, fresh = images(total, ratio)
    table = TileTable(places)
    columns = kernels.compare(on(device, base), on(device, fresh), table)
    expected = [two_level_diff(base[at : at + size], fresh[at : at + size])[0] for at, size in places]
    assert payloads_of(table, host(columns)) == expected


@pytest.mark.parametrize("ratio", RATIOS)
def test_pages_of_whole_tiles_side_by_side(kernels, device, ratio):
    base, fresh = images(16 * 4096, ratio)
    table = TileTable([(index * 8192, 8192) for index in range(7)])
    assert table.contiguous
    assert table.whole
    slab = on(device, base)
    columns = kernels.compare(slab, on(device, fresh), table, update=True)
    expected = [two_level_diff(base[at : at + 8192], fresh[at : at + 8192])[0] for at in range(0, 7 * 8192, 8192)]
    assert payloads_of(table, host(columns)) == expected
    assert np.array_equal(slab.cpu().numpy(), np.concatenate((fresh[: 7 * 8192], base[7 * 8192 :])))


def test_update_writes_the_pages_and_nothing_else(kernels, device):
    places, total = laid_out(SIZES)
    base, fresh = images(total, 0.3)
    slab = on(device, base)
    kernels.compare(slab, on(device, fresh), TileTable(places), update=True)
    after, owned = slab.cpu().numpy(), np.zeros(total, bool)
    for at, size in places:
        assert np.array_equal(after[at : at + size], fresh[at : at + size])
        owned[at : at + -(-size // 64) * 64] = True
    assert np.array_equal(after[~owned], base[~owned])


@pytest.mark.parametrize("ratio", RATIOS)
def test_apply_is_the_way_back(kernels, device, ratio):
    places, total = laid_out(SIZES)
    base, fresh = images(total, ratio)
    table = TileTable(places)
    made = columns_of(table, [two_level_diff(base[at : at + size], fresh[at : at + size])[0] for at, size in places])
    slab, shadow = on(device, base), on(device, base)
    kernels.apply([slab, shadow], table, Columns(on(device, made.blob), made.dirty_lines, made.changed_bytes))
    expected = base.copy()
    for at, size in places:
        expected[at : at + size] = fresh[at : at + size]
    assert np.array_equal(slab.cpu().numpy(), expected)
    assert torch.equal(slab, shadow)


@pytest.mark.parametrize("place", [0, 7, 8, 63, 64, 4095, 4096, 4097, 8190])
@pytest.mark.parametrize("value", [1, 0x10, 0x80, 0xFF])
def test_one_byte_anywhere(kernels, device, place, value):
    base = np.zeros(12_288, np.uint8)
    fresh = base.copy()
    fresh[place] ^= value
    table = TileTable([(0, 8191)])
    columns = host(kernels.compare(on(device, base), on(device, fresh), table))
    assert (columns.dirty_lines, columns.changed_bytes) == (1, 1)
    assert payloads_of(table, columns) == [two_level_diff(base[:8191], fresh[:8191])[0]]


def test_bytes_behind_a_page_do_not_count(kernels, device):
    base, fresh = np.zeros(8192, np.uint8), np.full(8192, 9, np.uint8)
    fresh[:70] = 0
    table = TileTable([(0, 70)])
    assert kernels.compare(on(device, base), on(device, fresh), table).changed_bytes == 0
    assert kernels.equal(on(device, base), on(device, fresh), table).tolist() == [True]


def test_a_payload_that_does_not_fit_never_reaches_a_kernel():
    base, fresh = images(4096, 0.1)
    payload, _ = two_level_diff(base, fresh)
    for odd in (payload[:-1], payload + b"\0", b"\xff" * 16):
        with pytest.raises(InvalidDelta):
            columns_of(TileTable([(0, 4096)]), [odd])


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.2, 1.0])
def test_gaps_are_those_of_the_wire(kernels, device, width, ratio):
    base, fresh = images(8 * 3001, ratio)
    found = diff_elements(base.data, fresh.data, width, base.size // width)
    made = kernels.gaps(on(device, base), on(device, fresh), width)
    for one, expected in zip(made, (found.gaps, found.base_values, found.fresh_values), strict=True):
        assert np.array_equal(one.cpu().numpy(), expected)


def test_hashes_are_xxh3_of_padded_tiles(kernels, device):
    places, total = laid_out(SIZES)
    data, _ = images(total, 0.0)
    expected = []
    for at, size in places:
        padded = data[at : at + size].tobytes().ljust(-(-size // 4096) * 4096, b"\0")
        expected += [xxhash.xxh3_64_intdigest(padded[tile : tile + 4096]) for tile in range(0, len(padded), 4096)]
    found = kernels.hashes(on(device, data), TileTable(places)).cpu().numpy().view(np.uint64)
    assert found.tolist() == expected


def test_copy_zero_and_equal(kernels, device):
    places, total = laid_out(SIZES)
    elsewhere, other_total = laid_out(SIZES, gap=512)
    data, _ = images(total, 0.0)
    source, target = on(device, data), on(device, np.zeros(other_total, np.uint8))
    table = TileTable(places)
    kernels.copy(target, TileTable(elsewhere), source, table)
    copied = target.cpu().numpy()
    for (at, size), (to, _) in zip(places, elsewhere, strict=True):
        assert np.array_equal(copied[to : to + size], data[at : at + size])
    other = source.clone()
    for at, size in places[::2]:
        other[at + size - 1] ^= 1
    assert kernels.equal(source, other, table).tolist() == [bool(index % 2) for index in range(len(places))]
    kernels.zero(source, table)
    assert all(not source[at : at + size].any() for at, size in places)


def masters_of(sizes, device, seed=0):
    chance = np.random.default_rng(seed)
    made = [chance.normal(size=size // 2).astype(np.float32) for size in sizes]
    made[0][:4] = [np.nan, np.inf, -np.inf, -0.0]
    return made, [on(device, one) for one in made]


def test_cast_rounds_and_tells_what_changed(kernels, device):
    sizes = [8, 64, 130, 4096, 4098, 20_000]
    places, total = laid_out(sizes)
    before, given_before = masters_of(sizes, device)
    slab, table = on(device, np.zeros(total, np.uint8)), TileTable(places)
    kernels.cast(given_before, slab, table)
    after = [one * np.float32(1.002) for one in before]
    columns = kernels.cast([on(device, one) for one in after], slab, table)
    rows = zip(before, after, strict=True)
    expected = [
        two_level_diff(bfloat16_bits(old).view(np.uint8), bfloat16_bits(new).view(np.uint8))[0] for old, new in rows
    ]
    assert payloads_of(table, host(columns)) == expected
    for (at, size), master in zip(places, after, strict=True):
        rounded = slab.cpu()[at : at + size].view(torch.bfloat16)
        assert torch.equal(rounded.nan_to_num(0), torch.from_numpy(master).to(torch.bfloat16).nan_to_num(0))
        assert rounded.isnan().equal(torch.from_numpy(np.isnan(master)))


def test_ties_go_to_even():
    ties = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x7F7FFFFF], np.uint32).view(np.float32)
    assert bfloat16_bits(ties).tolist() == [0x3F80, 0x3F82, 0x3F81, 0x7F80]


def test_columns_and_payloads_are_each_others_way_back():
    places, total = laid_out(SIZES)
    base, fresh = images(total, 0.1)
    payloads = [two_level_diff(base[at : at + size], fresh[at : at + size])[0] for at, size in places]
    payloads[3] = b""
    table = TileTable(places)
    assert payloads_of(table, columns_of(table, payloads)) == payloads
    for (at, size), payload in zip(places, payloads, strict=True):
        page = base[at : at + size].copy()
        two_level_apply(page, payload)
        assert payload == b"" or np.array_equal(page, fresh[at : at + size])


def test_which_kernels_run_where(device, monkeypatch):
    assert kernels_for("cpu").name == "host"
    with pytest.raises(UsageError, match="unknown set of kernels"):
        kernels_for("cpu", "fast")
    with pytest.raises(DeviceError, match="kernels of the host"):
        kernels_for("meta", "host")
    monkeypatch.setattr(sets, "has_triton", lambda: False)
    assert kernels_for("meta").name == "eager"
    with pytest.raises(MissingExtraError, match="pip install triton"):
        kernels_for(device, "triton")
    monkeypatch.undo()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if sets.has_triton():
        with pytest.raises(DeviceError, match="TRITON_INTERPRET=1"):
            kernels_for("cpu", "triton")


@pytest.mark.skipif(not sets.has_triton(), reason="the package triton is not installed")
@pytest.mark.parametrize("capability", ["80", "90"])
def test_kernels_in_triton_compile_for_gpus_that_are_not_here(capability, tmp_path):
    script = Path(__file__).with_name("compile_kernels.py")
    plain = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), capability],
        env={**plain, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" lines of PTX\n") == 10
