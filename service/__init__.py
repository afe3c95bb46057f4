"""Serve an Isolation Forest over HTTP."""

__version__ = "0.1.0"
