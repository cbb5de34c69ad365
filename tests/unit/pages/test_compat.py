"""The original's names do what they did, and better."""

from pathlib import Path

import pytest

from stoker.pages import Conflict, CycleError, InvalidDelta, compat


def test_quickstart(tmp_path: Path) -> None:
    state = compat.mmsb_start()
    page = compat.create_page(state, size=16, metadata={"name": "greeting"})
    compat.update_page(state, page, b"Hello".ljust(16))
    assert compat.query_page(state, page) == b"Hello".ljust(16)
    assert compat.get_stats(state).pages == 1
    path = compat.checkpoint_log(state, str(tmp_path / "greeting.stkc"))
    compat.mmsb_stop(state)
    again = compat.load_checkpoint(str(path))
    assert compat.query_page(again, page) == b"Hello".ljust(16)
    assert compat.verify_state_consistency(again)
    compat.mmsb_stop(again)


def test_tutorial() -> None:
    with compat.mmsb() as state:
        source, derived, monitor = (
            compat.create_page(state, size=32, metadata={"name": name}) for name in ("source", "derived", "monitor")
        )
        compat.add_dependency(state, source, derived)
        compat.add_dependency(state, derived, monitor)
        compat.register_passthrough_recompute(state, derived, source)
        compat.register_recompute_fn(
            state, monitor, lambda seen, _: b"seen:" + compat.query_page(seen, derived).rstrip()[:20].ljust(27)
        )
        for text in (b"first", b"second", b"third"):
            compat.update_page(state, source, text.ljust(32), source="user")
            assert compat.propagate_change(state) == [derived, monitor]
            assert compat.query_page(state, derived) == text.ljust(32)
            assert compat.query_page(state, monitor).rstrip() == b"seen:" + text
        assert compat.topological_sort(state) == [source, derived, monitor]
        assert not compat.has_cycle(state)
        with pytest.raises(CycleError):
            compat.add_dependency(state, monitor, source)
        assert len(compat.query_log(state, page=source, source="user")) == 3
        assert compat.replay_page_history(state, source)[-1] == b"third".ljust(32)
        past = compat.replay_to_epoch(state, source, 1)
        assert bytes(past.pages[source].data) == b"first".ljust(32)
        assert compat.compute_diff(past, compat.replay_to_timestamp(state, 2**62)).changed


def test_deltas_route_and_conflict() -> None:
    with compat.mmsb() as state:
        page = compat.create_page(state, size=64)
        delta = compat.create_delta(state, page, b"new".ljust(64), "me")
        compat.route_delta(state, delta)
        assert compat.query_page(state, page) == b"new".ljust(64)
        stale = compat.create_delta(state, page, b"other".ljust(64))
        compat.update_page(state, page, b"between".ljust(64))
        with pytest.raises(Conflict):
            compat.route_delta(state, stale)
        assert compat.query_page(state, page) == b"between".ljust(64)
        twin = compat.clone_page(state, page)
        compat.resize_page(state, twin, 8)
        compat.delete_page(state, page)
        assert compat.query_page(state, twin) == b"between "


def test_replay_from_checkpoints_by_predicate_and_by_deltas(tmp_path: Path) -> None:
    with compat.mmsb() as state:
        page = compat.create_page(state, size=64)
        compat.update_page(state, page, b"one".ljust(64))
        path = compat.checkpoint_log(state, str(tmp_path / "one.stkc"))
        delta = compat.create_delta(state, page, b"two".ljust(64))
        compat.route_delta(state, delta)
        compat.update_page(state, page, b"three".ljust(64))
        then = compat.replay_from_checkpoint(str(path), [delta])
        assert bytes(then.pages[page].data) == b"two".ljust(64)
        with pytest.raises(InvalidDelta, match="epoch 3"):
            compat.incremental_replay(then, [delta])
        found = compat.replay_with_predicate(
            state, lambda one: page in one.pages and one.pages[page].data[0] == ord("t")
        )
        assert list(dict.fromkeys(bytes(one.pages[page].data).strip() for one in found)) == [b"two", b"three"]


def test_propagation_is_scheduled_and_executed() -> None:
    with compat.mmsb() as state:
        source, derived, other = (compat.create_page(state, size=8) for _ in range(3))
        compat.register_passthrough_recompute(state, derived, source)
        compat.propagate_change(state)
        compat.update_page(state, source, b"12345678")
        assert compat.schedule_propagation(state, [source]) == [derived]
        assert compat.schedule_propagation(state, [other]) == []
        assert compat.execute_propagation(state) == [derived]
        assert compat.query_page(state, derived) == b"12345678"


def test_the_log_is_compressed_and_numbers_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with compat.mmsb(path=str(tmp_path / "bus")) as state:
        page = compat.create_page(state, size=4096)
        for index in range(10):
            compat.update_page(state, page, bytes([index + 1]) * 4096)
        assert compat.compress_log(state) >= 1
        assert compat.verify_state_consistency(state)
        compat.print_stats(state)
        assert "pages: 1\n" in capsys.readouterr().out
