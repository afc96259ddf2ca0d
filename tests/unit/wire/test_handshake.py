"""Who may talk to whom."""

from dataclasses import replace

import pytest
from wire_nodes import peer_hello

from isochrone.ids import ClusterId, Incarnation, NodeId, StoreId, store_id
from isochrone.wire.handshake import client_refusal, peer_refusal
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello

OWN = peer_hello("a")
PEER = peer_hello("b", incarnation=5)
STORES = {NodeId("b"): PEER.store}


@pytest.mark.parametrize("seen", [{}, {NodeId("b"): Incarnation(4)}, {NodeId("b"): Incarnation(5)}])
def test_a_peer_that_is_not_outdated_is_heard(seen: dict[NodeId, Incarnation]) -> None:
    assert peer_refusal(OWN, PEER, STORES, seen) is None


def test_a_replaced_process_is_refused() -> None:
    seen = {NodeId("b"): Incarnation(6)}
    assert peer_refusal(OWN, PEER, STORES, seen) == "a knows incarnation 6 of b; 5 has been replaced"


def test_another_cluster_is_refused() -> None:
    other = replace(PEER, cluster=ClusterId("d"))
    assert peer_refusal(OWN, other, STORES, {}) == "a belongs to cluster c, b to d"


def test_another_store_under_the_same_name_is_refused_however_high_its_incarnation() -> None:
    other = replace(PEER, store=StoreId("wiped"), incarnation=Incarnation(99))
    refusal = "a knows b with store store-b; with wiped it must rejoin as a learner"
    assert peer_refusal(OWN, other, STORES, {}) == refusal


def test_a_store_that_took_the_place_of_the_known_one_may_connect_and_an_earlier_one_not() -> None:
    later = replace(PEER, store=store_id("other", 1))
    assert peer_refusal(OWN, later, STORES, {}) is None
    assert peer_refusal(OWN, PEER, {NodeId("b"): later.store}, {}) is not None


def test_a_node_that_shares_no_group_may_connect() -> None:
    assert peer_refusal(OWN, peer_hello("elsewhere"), STORES, {}) is None


def test_another_protocol_is_refused() -> None:
    other = replace(PEER, protocol_version=PROTOCOL_VERSION + 1)
    assert peer_refusal(OWN, other, STORES, {}) == "a speaks protocol version 2, b 3"


def test_a_client_of_another_protocol_is_refused() -> None:
    hello = ClientHello(PROTOCOL_VERSION, "r", "z", "me")
    assert client_refusal(hello) is None
    assert client_refusal(replace(hello, protocol_version=7)) == ("this node speaks protocol version 2, the client 7")
