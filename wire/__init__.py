"""What crosses a process boundary: messages, codecs, gRPC streams and link shaping."""
