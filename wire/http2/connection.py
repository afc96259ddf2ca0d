"""One connection of an HTTP/2 server, without I/O: bytes in, calls of a handler, bytes out.

Streams, windows and output are those of every `Endpoint`. A server takes calls, and is reached by anybody, so more of
what a client makes us keep is bounded: streams at a time (those that it gave up while work for them goes on included),
and the bytes of unfinished requests. So is work that no answer pays for: calls that it begins and gives up. Whoever
goes beyond loses the connection, and with it only its own calls.
"""

from collections.abc import Callable
from typing import final

from isochrone.wire.http2 import frames
from isochrone.wire.http2.endpoint import COUNTED_BYTES, Consumer, Endpoint, Stream
from isochrone.wire.http2.frames import Code, ProtocolError, frame
from isochrone.wire.http2.headers import HEADER_LIST_BYTES_MAX, HeaderDecoder, RequestHeaders, http_refusal
from isochrone.wire.http2.limits import PIECE_BYTES, Limits

Accept = Callable[["Connection", Stream, RequestHeaders], Consumer | None]
"""Takes a new call; None if it answered at once."""


@final
class Connection(Endpoint):
    """See the module."""

    def __init__(
        self, accept: Accept, wake: Callable[[], None], limits: Limits, grown: Callable[[], None] | None = None
    ) -> None:
        super().__init__(wake, limits, frames.PREFACE, grown)
        self._accept = accept
        self._decoder = HeaderDecoder()
        self._abandoned = 0
        self._resets = 0
        self._request_bytes = 0
        self._request_bytes_noticed = limits.request_bytes if grown is None else COUNTED_BYTES
        self._going_away = False
        self._write(
            frames.settings(
                (frames.MAX_CONCURRENT_STREAMS, limits.streams),
                (frames.INITIAL_WINDOW_SIZE, limits.stream_window_bytes),
                (frames.MAX_HEADER_LIST_SIZE, HEADER_LIST_BYTES_MAX),
            )
            + frames.window_update(0, limits.connection_window_bytes - frames.WINDOW_DEFAULT)
        )

    def go_away(self) -> None:
        """Take no new streams; `is_idle` tells when those under way have ended."""
        if not self._going_away:
            self._going_away = True
            self._write(frames.go_away(self._last_stream, Code.NO_ERROR))

    # What consumers call. All of it is without effect on a stream that has ended.

    def answer(self, stream: Stream, block: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer: headers, data, trailers."""
        number, size = stream.number, len(data)
        if number not in self._streams:
            return
        if self._fits(stream, size):
            self._send_window -= size
            self._write(
                frame(frames.HEADERS, frames.END_HEADERS, number, block)
                + frame(frames.DATA, 0, number, data)
                + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, number, trailers)
            )
            self._ended(stream)
            self._check_backlog()
        else:
            self.send_headers(stream, block)
            self.send_data(stream, data)
            self.finish(stream, trailers)

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """The headers of an answer, before its data."""
        if stream.number in self._streams:
            self._write(frame(frames.HEADERS, frames.END_HEADERS, stream.number, block))

    def finish(self, stream: Stream, trailers: bytes) -> None:
        """The end of an answer, once its data has left."""
        if stream.number in self._streams:
            stream.pending.append((trailers, True))
            self._backlog_bytes += len(trailers) + PIECE_BYTES
            if stream.number not in self._blocked:
                self._advance(stream)
            self._check_backlog()

    def reset(self, stream: Stream, code: Code) -> None:
        """End a stream at once: what waits at it does not leave any more."""
        if self._streams.pop(stream.number, None) is not None:
            self._forget(stream)
            self._write(frames.reset_stream(stream.number, code))

    def work_ended(self) -> None:
        """The work for a call ended that its client had given up."""
        self._abandoned -= 1

    def hold(self, more: int) -> None:
        """Count bytes of unfinished requests, or discount them.

        Raises:
            ProtocolError: there are too many; to be passed on to `receive`, from which the consumer was called.
        """
        self._request_bytes += more
        if self._request_bytes > self._request_bytes_noticed and more > 0:
            if self._request_bytes > self._limits.request_bytes:
                raise ProtocolError(Code.ENHANCE_YOUR_CALM, "too much of unfinished requests")
            if self._grown is not None:
                self._grown()

    def count(self) -> int:
        """See `Endpoint`; bytes of unfinished requests are kept, too."""
        self._request_bytes_noticed = min(self._request_bytes + COUNTED_BYTES, self._limits.request_bytes)
        return super().count() + self._request_bytes

    # Reading.

    def _block_complete(self, flags: int, number: int, block: bytes) -> None:
        headers = self._decoder.decode(block)
        ended = bool(flags & frames.END_STREAM)
        stream = self._streams.get(number)
        if stream is not None:  # the trailers of a request, which gRPC does not use
            if stream.remote_ended or not ended:
                raise ProtocolError(Code.PROTOCOL_ERROR, "headers inside a stream")
            stream.remote_ended = True
            if stream.consumer is not None:
                stream.consumer.received(b"", True)
        elif number > self._last_stream and number % 2:
            self._last_stream = number
            self._open(number, headers, ended)
        elif number == 0 or number % 2 == 0:
            raise ProtocolError(Code.PROTOCOL_ERROR, f"a client does not open stream {number}")

    def _open(self, number: int, headers: RequestHeaders | None, ended: bool) -> None:
        if self._going_away or len(self._streams) + self._abandoned >= self._limits.streams:
            self._write(frames.reset_stream(number, Code.REFUSED_STREAM))
            return
        if headers is None:
            self._write(frames.reset_stream(number, Code.PROTOCOL_ERROR))
            return
        stream = self._streams[number] = Stream(number, self._stream_send_window, remote_ended=ended)
        if headers.refusal is not None:
            self.finish(stream, http_refusal(*headers.refusal))
            return
        stream.consumer = self._accept(self, stream, headers)
        if ended and stream.consumer is not None:
            stream.consumer.received(b"", True)

    def _reset(self, number: int, payload: bytes) -> None:
        frames.parse_word(payload)
        self._check_not_idle(number)
        stream = self._streams.pop(number, None)
        if stream is not None:
            self._forget(stream)
            self._cancel(stream)
            self._resets += 1
            if self._resets > self._limits.resets:
                raise ProtocolError(Code.ENHANCE_YOUR_CALM, "too many calls are begun and given up")

    def _away(self, payload: bytes) -> None:
        """The client will begin no more calls; those under way go on."""

    def _check_not_idle(self, number: int) -> None:
        if number == 0 or number % 2 == 0 or number > self._last_stream:
            raise ProtocolError(Code.PROTOCOL_ERROR, f"stream {number} was not opened")

    # Writing.

    def _ended(self, stream: Stream) -> None:
        """We have sent the end of a stream."""
        del self._streams[stream.number]
        self._blocked.pop(stream.number, None)
        if self._resets:
            self._resets -= 1
        if not stream.remote_ended:  # tell the client that the rest of its request is of no use
            self._write(frames.reset_stream(stream.number, Code.NO_ERROR))

    def _cancel(self, stream: Stream) -> None:
        if stream.consumer is not None and stream.consumer.cancelled():
            self._abandoned += 1
