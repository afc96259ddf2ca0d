"""gRPC over HTTP/2, made for many small messages; without I/O, but for the `*_os` modules.

grpc.aio costs a Python process some 150 us for a unary call that does nothing, and as much for a message on a stream,
at each end. Here the same costs a tenth: what has arrived is parsed in one pass, each message is handed over as a
function call, and everything that was sent meanwhile leaves in one write (`bench/echo.py`).

Both ends are `Endpoint`s. The server takes unary calls and streams: etcd's API, and a node's peers, sessions and
operators. The client carries one stream on a connection of its own: to a peer, or an SDK's session.

It is for gRPC and nothing else: `POST` with `application/grpc`, no compression, no push, no priorities.
"""
