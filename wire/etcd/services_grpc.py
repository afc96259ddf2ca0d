"""The services of etcd's API as tables of their methods, made from the descriptors of the .proto files.

Both ends of a call need the same five things of a method; `Method` holds them, so that neither repeats the names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from isochrone.wire.etcd.generated import rpc_pb2, v3election_pb2, v3lock_pb2


@dataclass(frozen=True, slots=True)
class Method:
    """One call of a service."""

    service: str
    """Full name, such as `etcdserverpb.KV`."""
    name: str
    request: type[Message]
    response: type[Message]
    request_streams: bool
    response_streams: bool

    @property
    def path(self) -> str:
        """As gRPC names the call."""
        return f"/{self.service}/{self.name}"


def _methods(file: FileDescriptor) -> Iterator[Method]:
    for service in file.services_by_name.values():
        for method in service.methods:
            yield Method(
                service.full_name,
                method.name,
                GetMessageClass(method.input_type),
                GetMessageClass(method.output_type),
                method.client_streaming,
                method.server_streaming,
            )


METHODS: dict[str, Method] = {
    method.path: method for file in (rpc_pb2, v3lock_pb2, v3election_pb2) for method in _methods(file.DESCRIPTOR)
}
"""Every method of the API by its path."""


def client_call(channel: grpc.aio.Channel, path: str) -> Any:
    """The call of a method on a channel, as a generated stub would have it."""
    method = METHODS[path]
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    return kinds[method.request_streams, method.response_streams](
        path, request_serializer=method.request.SerializeToString, response_deserializer=method.response.FromString
    )
