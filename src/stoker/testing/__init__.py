"""Conformance suites for plug-ins: subclass one in your own tests and supply what it asks for. They need pytest."""
