"""Pages made from other pages, and what keeps them up to date."""

from stoker.kernels.waves import WaveReport
from stoker.pages.graph.edges import DependencyGraph, EdgeKind
from stoker.pages.graph.engine import Propagation
from stoker.pages.graph.events import Event, EventKind, EventQueue, Subscriptions, events_of
from stoker.pages.graph.nodes import BUILT_IN, Derivation, Input

__all__ = [
    "BUILT_IN",
    "DependencyGraph",
    "Derivation",
    "EdgeKind",
    "Event",
    "EventKind",
    "EventQueue",
    "Input",
    "Propagation",
    "Subscriptions",
    "WaveReport",
    "events_of",
]
