"""Who may talk to whom: the checks at the start of a peer or session stream, pure."""

from collections.abc import Mapping

from isochrone.ids import Incarnation, NodeId, StoreId, is_later_store
from isochrone.wire.messages import PROTOCOL_VERSION, PeerHello
from isochrone.wire.session import ClientHello


def peer_refusal(
    own: PeerHello,
    peer: PeerHello,
    stores: Mapping[NodeId, StoreId],
    highest_seen: Mapping[NodeId, Incarnation],
) -> str | None:
    """Why a peer must not be heard, or None if it may be.

    `stores` holds the store of each node that shares a group with this one: the same name on another store is another
    replica. One that took the known one's place may have joined since, and is heard. `highest_seen` holds the highest
    incarnation known of each peer; an older one is a process that has been replaced.
    """
    if peer.protocol_version != own.protocol_version:
        return f"{own.node} speaks protocol version {own.protocol_version}, {peer.node} {peer.protocol_version}"
    if peer.cluster != own.cluster:
        return f"{own.node} belongs to cluster {own.cluster}, {peer.node} to {peer.cluster}"
    store = stores.get(peer.node, peer.store)
    if peer.store != store and not is_later_store(peer.store, store):
        return f"{own.node} knows {peer.node} with store {store}; with {peer.store} it must rejoin as a learner"
    highest = highest_seen.get(peer.node, Incarnation(0))
    if peer.incarnation < highest:
        return f"{own.node} knows incarnation {highest} of {peer.node}; {peer.incarnation} has been replaced"
    return None


def client_refusal(hello: ClientHello) -> str | None:
    """Why a client must not be served, or None if it may be."""
    if hello.protocol_version != PROTOCOL_VERSION:
        return f"this node speaks protocol version {PROTOCOL_VERSION}, the client {hello.protocol_version}"
    return None
