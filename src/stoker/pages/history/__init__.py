"""Past states: checkpoints, replay, differences."""

from stoker.pages.history.checkpoint import CheckpointFacts, Written, checkpoint_name, write_checkpoint, write_state
from stoker.pages.history.checkpoint_read import (
    latest_valid,
    list_checkpoints,
    open_checkpoint,
    prune_checkpoints,
    read_checkpoint,
    verify_checkpoint,
)
from stoker.pages.history.diff import PageChange, StateDiff, diff_states, frames_between
from stoker.pages.history.kept import Kept
from stoker.pages.history.replay import NOW, PageVersion, Target, page_history, replay, replay_where
from stoker.pages.history.state import State

__all__ = [
    "NOW",
    "CheckpointFacts",
    "Kept",
    "PageChange",
    "PageVersion",
    "State",
    "StateDiff",
    "Target",
    "Written",
    "checkpoint_name",
    "diff_states",
    "frames_between",
    "latest_valid",
    "list_checkpoints",
    "open_checkpoint",
    "page_history",
    "prune_checkpoints",
    "read_checkpoint",
    "replay",
    "replay_where",
    "verify_checkpoint",
    "write_checkpoint",
    "write_state",
]
