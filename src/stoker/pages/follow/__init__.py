"""Followers: the frames of a store as they are committed, from shared memory, from its folder or over a socket."""

from stoker.pages.follow.client import SocketFollower
from stoker.pages.follow.replica import Replica
from stoker.pages.follow.server import FrameServer
from stoker.pages.follow.tail import FileFollower, Follower, RingFollower

__all__ = ["FileFollower", "Follower", "FrameServer", "Replica", "RingFollower", "SocketFollower"]
