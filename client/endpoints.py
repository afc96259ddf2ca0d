"""Addresses of nodes, as people write them. Pure."""

import re
from collections.abc import Iterable

from isochrone.errors import InvalidRequest

_ADDRESS = re.compile(r"(?:[^\s:/\[\]]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")


def check_endpoints(endpoints: Iterable[str]) -> None:
    """Raise `InvalidRequest` for what is not `host:port`: nobody could ever answer there, so waiting were in vain."""
    for endpoint in endpoints:
        match = _ADDRESS.fullmatch(endpoint)
        if match is None or not 1 <= int(match[1]) <= 65_535:
            raise InvalidRequest(f"endpoint {endpoint!r} is no address; write HOST:PORT, such as 127.0.0.1:7001")
