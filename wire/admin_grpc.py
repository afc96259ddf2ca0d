"""The admin channel, as unary calls: status, operations on groups, link changes, an orderly stop. It is never shaped.

Requests and answers are msgpack values.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Protocol, Self, cast, final

import grpc
import grpc.aio
import msgpack

from isochrone.errors import (
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    IsochroneError,
    Unavailable,
    status_of,
)
from isochrone.ids import ZoneId
from isochrone.wire.codec import FRAME_BYTES_MAX
from isochrone.wire.http2.calls import UNKNOWN, Call, Methods, UnaryMethod
from isochrone.wire.operations import Operation, decode_operation, decode_outcome, encode_operation, encode_outcome
from isochrone.wire.pack import pack
from isochrone.wire.shaping import LinkShape
from isochrone.wire.status import NodeStatus, status_from_plain, status_to_plain
from isochrone.wire.streams_grpc import QUIET_S, SERVICE

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", FRAME_BYTES_MAX),
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX),
    # A lost host sends no reset: pings find out.
    ("grpc.keepalive_time_ms", round(QUIET_S * 1000)),
    ("grpc.keepalive_timeout_ms", round(QUIET_S * 1000)),
    ("grpc.http2.max_pings_without_data", 0),
    # A channel of its own, with no memory of earlier failures: when to try again is decided here, not inside gRPC.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]

Links = Mapping[tuple[ZoneId, ZoneId], LinkShape]


class AdminHandler(Protocol):
    """What a node does on the admin channel. Called in the loop's thread; must not block."""

    def status(self) -> NodeStatus:
        """The node's state now."""

    async def operate(self, operation: Operation) -> None:
        """Do what an operator asks of a group; returns when it is done.

        Raises:
            IsochroneError: why it was not done; the class says whether something may have happened.
        """

    def set_links(self, links: Links) -> None:
        """Change how the links named are shaped; the others stay as they are."""

    def request_stop(self) -> None:
        """Begin an orderly stop; whoever asked has been answered."""


@final
class AdminClient:
    """Talks to one node over the admin channel.

    All calls raise `Unavailable` when nobody answers at the address, `DeadlineExceeded` when no answer came in time
    (a change may have been made then) and `InvalidRequest` when the node refuses what was asked.
    """

    def __init__(self, address: str) -> None:
        """Prepare calls to the node at `address` (`host:port`). Use in `async with`."""
        self._address = address
        self._channel: Any = None

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def status(self, timeout_s: float) -> NodeStatus:
        """What the node says of itself."""
        return status_from_plain(msgpack.unpackb(await self._call("Status", b"", timeout_s)))

    async def operate(self, operation: Operation, timeout_s: float) -> None:
        """Have an operation done. Raises what the node answers, or:

        Raises:
            Unavailable: the node cannot be reached; nothing was sent.
            Indeterminate: the operation was sent, and no answer came; it may have been done, or may yet be.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(deadline):
                await self._connect()
        except TimeoutError as error:
            raise Unavailable(f"node at {self._address} does not answer") from error
        try:
            async with asyncio.timeout_at(deadline):
                call = self._channel.unary_unary(f"/{SERVICE}/Operate")
                data = cast("bytes", await call(encode_operation(operation)))
        except TimeoutError as error:
            raise DeadlineExceeded(f"node at {self._address} did not answer within {timeout_s:g} s") from error
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Unavailable(f"node at {self._address} is of a release without such operations") from error
            text = f"the connection to the node at {self._address} broke before it answered: {error.details()}"
            raise ConnectionLost(text) from error
        if (outcome := decode_outcome(operation.group, data)) is not None:
            raise outcome

    async def _connect(self) -> None:
        """Return when the channel is up. Raises `Unavailable` when nobody listens at the address."""
        state = self._channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                raise Unavailable(f"node at {self._address} does not answer")
            await self._channel.wait_for_state_change(state)
            state = self._channel.get_state(try_to_connect=True)

    async def set_links(self, links: Links, timeout_s: float) -> None:
        """Change how frames that the node sends are shaped, on the links named; the others stay as they are."""
        await self._call("SetLinks", encode_links(links), timeout_s)

    async def stop(self, timeout_s: float) -> None:
        """Ask the node to stop. Returns when it has agreed, not when it is gone."""
        await self._call("Stop", b"", timeout_s)

    async def _call(self, method: str, request: bytes, timeout_s: float) -> bytes:
        try:
            return cast("bytes", await self._channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            raise self._error_of(method, error, timeout_s) from error

    def _error_of(self, method: str, error: grpc.aio.AioRpcError, timeout_s: float) -> IsochroneError:
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded(f"node at {self._address} did not answer {method} within {timeout_s:g} s")
            case grpc.StatusCode.INVALID_ARGUMENT:
                return InvalidRequest(f"node at {self._address} refuses {method}: {error.details()}")
            case _:
                return Unavailable(f"node at {self._address} does not answer: {error.details()}")


def encode_links(links: Links) -> bytes:
    """Encode link shapes for the admin channel."""
    return pack(
        [
            (source, target, shape.delay_ms, shape.jitter_ms, shape.loss, shape.cut)
            for (source, target), shape in links.items()
        ]
    )


def decode_links(data: bytes) -> dict[tuple[ZoneId, ZoneId], LinkShape]:
    """Parse link shapes. Raises `InvalidRequest` for bytes that are none, and for impossible figures."""
    links = {}
    try:
        for source, target, delay_ms, jitter_ms, loss, cut in msgpack.unpackb(data):
            if type(source) is not str or type(target) is not str:
                raise TypeError("zones")
            shape = LinkShape(float(delay_ms), float(jitter_ms), float(loss), bool(cut))
            times_ms = (shape.delay_ms, shape.jitter_ms)
            if not (all(math.isfinite(time_ms) and time_ms >= 0 for time_ms in times_ms) and 0 <= shape.loss <= 1):
                raise InvalidRequest(f"link {source} to {target}: {shape} is impossible")
            links[ZoneId(source), ZoneId(target)] = shape
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise InvalidRequest(f"malformed links of {len(data)} bytes") from error
    return links


@final
class AdminService:
    """Takes admin calls for an `AdminHandler`."""

    def __init__(self, handler: AdminHandler) -> None:
        self._handler = handler
        self._operations: dict[asyncio.Task[None], None] = {}
        """Under way."""

    def methods(self) -> Methods:
        """Its methods, by path."""
        handlers = {
            "Status": self._status,
            "Operate": self._begin_operation,
            "SetLinks": self._set_links,
            "Stop": self._stop,
        }
        return {f"/{SERVICE}/{name}": UnaryMethod(handle) for name, handle in handlers.items()}

    async def close(self) -> None:
        """End the operations that are under way; whoever asked hears that it is not known what became of them."""
        operations = list(self._operations)
        for operation in operations:
            operation.cancel()
        await asyncio.gather(*operations, return_exceptions=True)

    def _status(self, call: Call, _: bytes) -> None:
        call.answer(pack(status_to_plain(self._handler.status())))

    def _begin_operation(self, call: Call, request: bytes) -> None:
        operation = asyncio.get_running_loop().create_task(self._operate(call, request), name="operation")
        self._operations[operation] = None
        operation.add_done_callback(self._operations.pop)

    async def _operate(self, call: Call, request: bytes) -> None:
        outcome: IsochroneError | None = None
        try:
            await self._handler.operate(decode_operation(request))
        except IsochroneError as error:
            outcome = error
        except BaseException:
            call.fail(UNKNOWN, "the node gave the operation up")
            raise
        call.answer(encode_outcome(outcome))

    def _set_links(self, call: Call, request: bytes) -> None:
        try:
            self._handler.set_links(decode_links(request))
        except IsochroneError as error:
            code, _ = grpc.StatusCode[status_of(error)].value
            call.fail(code, str(error))
        else:
            call.answer(b"")

    def _stop(self, call: Call, _: bytes) -> None:
        """The node begins to stop when the answer is on its way: it leaves in this turn of the loop."""
        call.answer(b"")
        self._handler.request_stop()
