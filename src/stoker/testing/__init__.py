"""Conformance suites for plug-ins: subclass one in your own tests and supply what it asks for. They need pytest.

`mlperf_trees` makes valid trees of MLPerf Storage results, for tests of whatever reads them; it needs nothing more.
"""
