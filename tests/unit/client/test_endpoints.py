"""What is no address is refused at once, with an example of one that is."""

import pytest

from isochrone.client.endpoints import check_endpoints
from isochrone.errors import InvalidRequest


def test_addresses_are_hosts_with_ports() -> None:
    check_endpoints(["127.0.0.1:7001", "node-1.example.org:1", "[::1]:65535", "host_2:7001"])


@pytest.mark.parametrize(
    "endpoint",
    ["", "host", "host:", ":7001", "host:port", "host:0", "host:65536", "http://host:7001", "::1:7001", "a b:1"],
)
def test_anything_else_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidRequest, match="is no address; write HOST:PORT"):
        check_endpoints(["127.0.0.1:7001", endpoint])
