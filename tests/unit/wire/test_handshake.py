"""Who may talk to whom."""

from dataclasses import replace

import pytest
from wire_nodes import peer_hello

from isochrone.ids import ClusterId, Incarnation, NodeId
from isochrone.wire.handshake import client_refusal, peer_refusal
from isochrone.wire.messages import PROTOCOL_VERSION
from isochrone.wire.session import ClientHello

OWN = peer_hello("a")
PEER = peer_hello("b", incarnation=5)


@pytest.mark.parametrize("seen", [{}, {NodeId("b"): Incarnation(4)}, {NodeId("b"): Incarnation(5)}])
def test_a_peer_that_is_not_outdated_is_heard(seen: dict[NodeId, Incarnation]) -> None:
    assert peer_refusal(OWN, PEER, seen) is None


def test_a_replaced_process_is_refused() -> None:
    assert peer_refusal(OWN, PEER, {NodeId("b"): Incarnation(6)}) == ("a knows incarnation 6 of b; 5 has been replaced")


def test_another_cluster_is_refused() -> None:
    other = replace(PEER, cluster=ClusterId("d"))
    assert peer_refusal(OWN, other, {}) == "a belongs to cluster c, b to d"


def test_another_protocol_is_refused() -> None:
    other = replace(PEER, protocol_version=PROTOCOL_VERSION + 1)
    assert peer_refusal(OWN, other, {}) == "a speaks protocol version 1, b 2"


def test_a_client_of_another_protocol_is_refused() -> None:
    hello = ClientHello(PROTOCOL_VERSION, "r", "z", "me")
    assert client_refusal(hello) is None
    assert client_refusal(replace(hello, protocol_version=7)) == ("this node speaks protocol version 1, the client 7")
