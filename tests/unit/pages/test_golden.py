"""Format version 1 is frozen: golden files decode to what they were made of, and are made again byte by byte.

What zstd packed is compared unpacked: another release of zstd may pack the same bytes otherwise.
"""

from pathlib import Path

import golden_makers as made
import numpy as np
import pytest
import zstandard

from stoker.pages import Store, apply_weights
from stoker.pages.arena.layout import decode_static, plan_geometry
from stoker.pages.delta import Delta, XorDelta
from stoker.pages.errors import FormatError
from stoker.pages.graph.events import decode_event
from stoker.pages.graph.keeping import DERIVATIONS, EDGES, SIGNATURES, GraphKeeper
from stoker.pages.history import checkpoint_name, open_checkpoint, read_checkpoint, verify_checkpoint
from stoker.pages.images import SYSTEM
from stoker.pages.weights import Manifest, _decode_manifest
from stoker.pages.wire import HEADER_BYTES, decode_wire, read_header
from stoker.pages.wire_codecs import WireCodec

GOLDEN = Path(__file__).parent / "golden"
PACKED = {f"wire-{one.name.lower()}.bin" for one in WireCodec} - {"wire-same.bin", "wire-raw.bin", "wire-two_level.bin"}


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", sorted(made.small_files()))
def test_the_same_content_gives_the_same_bytes(name: str) -> None:
    fresh = made.small_files()[name]
    if name in PACKED:
        assert unpacked(fresh) == unpacked(golden(name))
    else:
        assert fresh == golden(name)


def unpacked(blob: bytes) -> tuple[object, ...]:
    """Return what a blob says but the lengths of its packed sections, and these unpacked."""
    header = read_header(blob)
    places = blob[HEADER_BYTES : HEADER_BYTES + header.places_bytes]
    codes = blob[HEADER_BYTES + header.places_bytes :]
    plain = [zstandard.ZstdDecompressor().decompress(part) if part else b"" for part in (places, codes)]
    return (header.codec, header.elem_width, header.raw_bytes, header.changed, header.base_xxh3, *plain)


@pytest.mark.parametrize("codec", list(WireCodec), ids=lambda codec: codec.name.lower())
def test_wire_blobs_of_every_codec_lead_to_the_new_image(codec: WireCodec) -> None:
    old, new = made.wire_images()
    blob = golden(f"wire-{codec.name.lower()}.bin")
    assert read_header(blob).codec == codec
    assert (decode_wire(old, blob) == (old if codec == WireCodec.SAME else new)).all()


def test_deltas_lead_to_the_new_image() -> None:
    old, new = made.wire_images()
    page = old.copy()
    delta = Delta.from_bytes(golden("delta.bin"))
    delta.apply(page)
    assert (page == new).all()
    assert (delta.page, delta.epoch, delta.elem_width, delta.source) == (5, 8, 2, "trainer")
    both_ways = XorDelta.from_bytes(golden("delta-xor.bin"))
    assert both_ways.apply(page, 8) == 7
    assert (page == old).all()


def test_checkpoints_hold_what_was_written() -> None:
    for lsn in (made.WHOLE_LSN, made.PACKED_LSN):
        state = read_checkpoint(GOLDEN / checkpoint_name(lsn))
        assert [(one.page, one.epoch, one.lsn) for one in state.pages.values()] == [
            (1, 3, 10),
            (2, 1, 11),
            (2**32 + 3, 7, 12),
        ]
        for image in made.images():
            found = state.pages[image.page]
            assert (found.data == image.data).all()
            told = (found.state, found.location, found.residency, found.elem_width, found.flags, found.meta)
            assert told == (image.state, image.location, image.residency, image.elem_width, image.flags, image.meta)
        assert (state.lsn, state.marks, state.sources, state.max_generation) == (lsn, {"start": 4}, {77: "trainer"}, 1)
        assert state.pages[2**32 + 3].facts() == {"name": "weights", "dtype": "<f4", "shape": [2, 4]}


def test_an_incremental_checkpoint_finds_its_pages_in_the_whole_one(tmp_path: Path) -> None:
    part = GOLDEN / checkpoint_name(made.PART_LSN)
    index = open_checkpoint(part).index
    assert [entry.holder_lsn for entry in index.pages] == [made.WHOLE_LSN, made.PART_LSN, made.WHOLE_LSN]
    state = read_checkpoint(part)
    assert bytes(state.pages[2].data) == b"\x09" * 5
    assert (state.pages[2].epoch, state.pages[2].lsn) == (2, 20)
    alone = tmp_path / part.name
    alone.write_bytes(part.read_bytes())
    assert "needs a file that is gone" in verify_checkpoint(alone)[0]


def test_checkpoints_are_written_the_same_again(tmp_path: Path) -> None:
    made.write_checkpoints(tmp_path)
    for lsn in (made.WHOLE_LSN, made.PART_LSN):
        name = checkpoint_name(lsn)
        assert (tmp_path / name).read_bytes() == golden(name)
    packed = checkpoint_name(made.PACKED_LSN)
    assert (tmp_path / packed).read_bytes()[:4096] == golden(packed)[:4096]
    assert open_checkpoint(tmp_path / packed).root == open_checkpoint(GOLDEN / packed).root


def test_pages_of_the_graph_hold_edges_derivations_and_signatures() -> None:
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        with store.batch() as batch:
            for short, name in {"edges": EDGES, "derivations": DERIVATIONS, "signatures": SIGNATURES}.items():
                data = golden(f"graph-{short}.bin")
                batch.write(batch.allocate(len(data), name=name, flags=SYSTEM), data)
        keeper = GraphKeeper(store)
        assert keeper.edges() == [edge for edge in made.EDGES_ADDED if edge != made.EDGE_REMOVED]
        assert keeper.derivations() == {node.page: node for node in made.NODES}
        assert keeper.signatures() == made.SEEN


def test_event_and_arena_header_tell_what_they_told() -> None:
    assert decode_event(golden("event.bin")) == made.EVENT
    geometry = decode_static(golden("arena-header.bin"), where="golden", file_bytes=1 << 30)
    planned = plan_geometry(made.UUID, made.SALT, data_bytes=1 << 20, page_slots=100, ring_bytes=1 << 16, flags=1)
    assert geometry == planned
    assert (geometry.reader_offset, geometry.slot_offset, geometry.ring_bytes) == (4096, 36864, 65536)


def test_a_manifest_of_weights_leads_to_the_tensors() -> None:
    manifest = _decode_manifest(np.frombuffer(golden("weights-manifest.bin"), np.uint8))
    assert isinstance(manifest, Manifest)
    assert (manifest.version, manifest.state) == (1, "whole")
    assert [(one.name, one.dtype, one.shape) for one in manifest.tensors] == [
        ("bias", "<f4", [4]),
        ("weight", "<f2", [3, 4]),
    ]
    with Store.open(size_bytes=1 << 20, pages_max=64, log_bytes=1 << 16) as store:
        with store.batch() as batch:
            pages = [batch.allocate(data.nbytes) for data in made.WEIGHTS.values()]
            assert [page.id for page in pages] == [one.pages[0] for one in manifest.tensors]
            for page, data in zip(pages, made.WEIGHTS.values(), strict=True):
                batch.write(page, data)
            data = golden("weights-manifest.bin")
            batch.write(batch.allocate(len(data), name="weights/manifest"), data)
        model = {name: np.zeros_like(tensor) for name, tensor in made.WEIGHTS.items()}
        apply_weights(model, store)
    assert all((model[name] == tensor).all() for name, tensor in made.WEIGHTS.items())


@pytest.mark.parametrize("name", ["checkpoint", "delta", "wire-raw", "arena-header"])
def test_another_version_is_refused(name: str, tmp_path: Path) -> None:
    """A version that this release does not know is refused as such, not taken for damage."""
    from stoker.kernels.checking import crc32c

    if name == "checkpoint":
        data = bytearray(golden(checkpoint_name(made.WHOLE_LSN)))
        data[8] = 9
        data[4092:4096] = crc32c(bytes(data[:4092])).to_bytes(4, "little")
        path = tmp_path / checkpoint_name(made.WHOLE_LSN)
        path.write_bytes(bytes(data))
        with pytest.raises(FormatError, match="version"):
            read_checkpoint(path)
        return
    data = bytearray(golden(f"{name}.bin"))
    data[8 if name == "arena-header" else 4] = 9
    with pytest.raises(FormatError, match="version"):
        if name == "arena-header":
            decode_static(bytes(data), where="x", file_bytes=1 << 30)
        elif name == "delta":
            Delta.from_bytes(bytes(data))
        else:
            decode_wire(made.wire_images()[0], bytes(data))
