"""The quickstart of the system that `stoker.pages` comes after, by its names: a page, its bytes, a checkpoint.

python examples/pages_quickstart.py
"""

import tempfile
from pathlib import Path

from stoker.pages import compat as mmsb


def main() -> None:
    """Write a greeting, read it, save it, and read it from what was saved."""
    state = mmsb.mmsb_start()
    page = mmsb.create_page(state, size=16, metadata={"name": "greeting"})
    mmsb.update_page(state, page, b"Hello, pages".ljust(16))
    print("read back:", mmsb.query_page(state, page).decode().rstrip())
    stats = mmsb.get_stats(state)
    print(f"pages: {stats.pages}, bytes: {stats.page_bytes}, commits: {stats.counters['commits']}")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "greeting.stkc")
        mmsb.mmsb_stop(state, checkpoint_path=path)
        again = mmsb.load_checkpoint(path)
        print("from the checkpoint:", mmsb.query_page(again, page).decode().rstrip())
        mmsb.mmsb_stop(again)


if __name__ == "__main__":
    main()
