"""Room of the global coordinator: directory, global locks and elections, region failover.

The package is imported as ``isochrone.global_`` because ``global`` is a keyword.
"""
