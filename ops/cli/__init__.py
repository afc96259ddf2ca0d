"""The ``isochrone`` command."""
