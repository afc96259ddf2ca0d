"""All command families that a node serves."""

from isochrone.regions.state.leases import LEASE_HANDLERS
from isochrone.regions.state.locks import LOCK_HANDLERS
from isochrone.regions.state.model import Handlers
from isochrone.regions.state.txn import KV_HANDLERS

HANDLERS: Handlers = {**KV_HANDLERS, **LEASE_HANDLERS, **LOCK_HANDLERS}
"""Handlers by type of operation, for `GroupState` and the host."""
