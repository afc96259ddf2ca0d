"""A server side of gRPC over HTTP/2 that is made for many small calls; without I/O, but for `server_os`.

grpc.aio costs a Python process some 150 us for a unary call that does nothing, and as much for a message on a stream.
What etcd's clients send are unary calls and watch streams, one message per operation, so there that price is the
ceiling of the whole endpoint. Here the same costs a tenth: what has arrived is parsed in one pass, each call is handed
over as a function call, and everything that was answered meanwhile leaves in one write (`bench/echo.py`).

It is a server for gRPC and nothing else: `POST` with `application/grpc`, no compression, no push, no priorities.
"""
