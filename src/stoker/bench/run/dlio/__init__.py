"""DLIO's configuration, verbatim: `compose` the words, `resolve` the values, `to_plan` what will be done."""

from stoker.bench.run.dlio.composing import Composition, compose
from stoker.bench.run.dlio.config import DlioConfig, Problem, query
from stoker.bench.run.dlio.keys import TABLE
from stoker.bench.run.dlio.output import OutputPlaces, output_places, render
from stoker.bench.run.dlio.planning import DlioRun, to_plan
from stoker.bench.run.dlio.resolving import resolve
from stoker.bench.run.dlio.shipped import shipped_names

__all__ = [
    "TABLE",
    "Composition",
    "DlioConfig",
    "DlioRun",
    "OutputPlaces",
    "Problem",
    "compose",
    "output_places",
    "query",
    "render",
    "resolve",
    "shipped_names",
    "to_plan",
]
