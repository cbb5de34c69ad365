"""The tutorial of the system that `stoker.pages` comes after, by its names: source → derived → monitor.

python examples/pages_tutorial.py
"""

from stoker.pages import Store
from stoker.pages import compat as mmsb

SIZE = 32


def summary(state: Store, derived: int) -> bytes:
    """Return a text about a page, as long as the page it goes into."""
    text = mmsb.query_page(state, derived).rstrip()
    return b"%d letters: %s" % (len(text), text[:16])


def main() -> None:
    """Change the source three times; the pages that depend on it follow in one wave each time."""
    with mmsb.mmsb() as state:
        source, derived, monitor = (
            mmsb.create_page(state, size=SIZE, metadata={"name": name}) for name in ("source", "derived", "monitor")
        )
        mmsb.add_dependency(state, source, derived)
        mmsb.add_dependency(state, derived, monitor)
        mmsb.register_passthrough_recompute(state, derived, source)
        mmsb.register_recompute_fn(state, monitor, lambda seen, _: summary(seen, derived).ljust(SIZE))
        for text in (b"first", b"second", b"third and last"):
            mmsb.update_page(state, source, text.ljust(SIZE), source="tutorial")
            made = mmsb.propagate_change(state)
            print(
                f"{len(made)} pages made anew; derived: {mmsb.query_page(state, derived).decode().rstrip()!r}, "
                f"monitor: {mmsb.query_page(state, monitor).decode().rstrip()!r}"
            )
        past = mmsb.replay_to_epoch(state, source, 1)
        print("source at epoch 1:", bytes(past.pages[source].data).decode().rstrip())
        print("writes by the tutorial:", len(mmsb.query_log(state, page=source, source="tutorial")))
        print("replay equals the pages:", mmsb.verify_state_consistency(state))


if __name__ == "__main__":
    main()
