"""What crosses a process boundary: messages, codecs, gRPC streams and link shaping."""

import os

# gRPC writes a line to stderr for every stream that a stopping peer ends. It reads this while it is imported, so it
# is set before any module of this room does that. Whoever wants to hear more sets it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
