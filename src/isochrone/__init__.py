"""Isochrone: multi-region coordination for Python and Ray."""

__version__ = "0.1.0"
