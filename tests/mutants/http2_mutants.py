"""Faults in the HTTP/2 server: framing, flow control, and the bounds on what a client may make it keep."""

from planting import Mutant

CONNECTION = "wire/http2/connection.py"
ENDPOINT = "wire/http2/endpoint.py"
CALLS = "wire/http2/calls.py"
HEADERS = "wire/http2/headers.py"
CLIENT = "wire/http2/client.py"
CLIENT_OS = "wire/http2/client_os.py"
KEEPALIVE = "wire/http2/keepalive.py"
SERVER_OS = "wire/http2/server_os.py"
SESSIONS = "wire/sessions_grpc.py"
SOCKET = "wire/http2/socket_os.py"

_BUDGET = "tests/integration/wire/test_budget.py::test_"
_CONNECTION = "tests/unit/wire/test_http2_connection.py::test_"
_ATTACKS = "tests/unit/wire/test_http2_attacks.py::test_"
_CALLS = "tests/unit/wire/test_http2_calls.py::test_"
_HEADERS = "tests/unit/wire/test_http2_headers.py::test_"
_SERVER = "tests/integration/wire/test_http2_server.py::test_"
_CLIENT = "tests/unit/wire/test_http2_client.py::test_"
_CLIENT_OS = "tests/integration/wire/test_http2_client.py::test_"
_KEEPALIVE = "tests/unit/wire/test_http2_keepalive.py::test_"
_TURNS = "tests/unit/wire/test_session_turns.py::test_"

HTTP2_MUTANTS = (
    Mutant(
        name="a small answer does not look at the stream's window",
        file=ENDPOINT,
        old="        return size <= stream.send_window and size <= self._send_window",
        new="        return size <= self._send_window",
        test=_CONNECTION + "small_answers_do_not_pass_the_windows_either",
    ),
    Mutant(
        name="an answer that waits is not counted against the connection's window",
        file=ENDPOINT,
        old="                stream.send_window -= size\n                self._send_window -= size\n",
        new="                stream.send_window -= size\n",
        test=_CONNECTION + "an_answer_waits_for_the_windows_and_goes_on_where_it_stopped",
    ),
    Mutant(
        name="new initial windows do not reach streams that are open",
        file=ENDPOINT,
        old="            stream.send_window += change\n",
        new="            stream.send_window += 0 * change\n",
        test=_CONNECTION + "small_answers_do_not_pass_the_windows_either",
    ),
    Mutant(
        name="the stream that waits longest takes the whole window every time",
        file=ENDPOINT,
        old="        self._blocked.pop(stream.number, None)\n        while stream.pending:\n",
        new="        while stream.pending:\n",
        test=_CONNECTION + "streams_that_wait_for_the_connections_window_take_turns",
    ),
    Mutant(
        name="calls may be begun and given up without end",
        file=CONNECTION,
        old="            self._resets += 1\n",
        new="",
        test=_ATTACKS + "rapid_reset",
    ),
    Mutant(
        name="acknowledgements weigh nothing but their bytes",
        file=ENDPOINT,
        old="        self._backlog_bytes += len(data) + PIECE_BYTES\n\n    def _fits",
        new="        self._backlog_bytes += len(data)\n\n    def _fits",
        test=_ATTACKS + "floods_that_want_acknowledgements",
    ),
    Mutant(
        name="a stream's window is not given back",
        file=ENDPOINT,
        old="        self._write(frames.window_update(stream.number, stream.credit))\n",
        new="",
        test=_CONNECTION + "a_server_takes_back_its_windows_as_a_request_arrives",
    ),
    Mutant(
        name="a call that its client gave up frees its place at once",
        file=CONNECTION,
        old="len(self._streams) + self._abandoned >= self._limits.streams",
        new="len(self._streams) >= self._limits.streams",
        test=_CONNECTION + "a_client_that_gives_its_calls_up_gets_no_place_before_their_work_has_ended",
    ),
    Mutant(
        name="the place of a call that was given up is never freed",
        file=CALLS,
        old="            if self.cancelled_by_client:\n                self._connection.work_ended()\n",
        new="",
        test=_CONNECTION + "a_client_that_gives_its_calls_up_gets_no_place_before_their_work_has_ended",
    ),
    Mutant(
        name="answers that are not taken are not bounded",
        file=ENDPOINT,
        old="            if self._backlog_bytes > self._limits.backlog_bytes:\n",
        new="            if False:\n",
        test=_CONNECTION + "a_client_that_takes_no_answers_loses_its_connection",
    ),
    Mutant(
        name="control frames that are not read are not bounded",
        file=ENDPOINT,
        old="            self._check_backlog()\n        except ProtocolError",
        new="        except ProtocolError",
        test=_CONNECTION + "pings_whose_answers_are_not_read_are_bounded",
    ),
    Mutant(
        name="a request that was given up counts for ever",
        file=CALLS,
        old="        self._drop(len(self._buffer))\n        if self._handler",
        new="        if self._handler",
        test=_CONNECTION + "requests_that_were_finished_or_given_up_do_not_count",
    ),
    Mutant(
        name="a header block is not bounded",
        file=ENDPOINT,
        old="        if len(block) > HEADER_LIST_BYTES_MAX or not payload:\n",
        new="        if not payload:\n",
        test=_CONNECTION + "a_header_block_is_bounded",
    ),
    Mutant(
        name="frames are handled after the connection was ended",
        file=ENDPOINT,
        old="        while end - at >= frames.HEADER_BYTES and not self.closing:\n",
        new="        while end - at >= frames.HEADER_BYTES:\n",
        test=_CONNECTION + "nothing_is_read_after_the_connection_was_ended_amid_a_batch",
    ),
    Mutant(
        name="header blocks are kept although the table has changed",
        file=HEADERS,
        old="            self._kept.clear()\n        elif headers",
        new="            pass\n        elif headers",
        test=_HEADERS + "the_same_bytes_after_a_change_of_the_table_are_read_anew",
    ),
    Mutant(
        name="a change of the table is told by its length",
        file=HEADERS,
        old=" or newest is not (entries[0] if entries else None)",
        new="",
        test=_HEADERS + "a_table_of_one_entry_is_watched_too",
    ),
    Mutant(
        name="a compressed message is taken for what it says",
        file=CALLS,
        old="        if flag:\n",
        new="        if False:\n",
        test=_CALLS + "wrong_requests_are_refused_and_reach_no_handler",
    ),
    Mutant(
        name="a handler hears messages after it ended the stream",
        file=CALLS,
        old="                if self._is_over():\n                    break\n",
        new="",
        test=_CALLS + "a_handler_may_end_a_stream_amid_its_messages",
    ),
    Mutant(
        name="a client that does not read is kept although it has lost its connection",
        file=SOCKET,
        old="            self._transport.abort()  # it does not read, so it cannot be told why\n",
        new="            pass\n",
        test=_SERVER + "a_client_that_does_not_read_loses_its_connection_and_others_are_served",
    ),
    Mutant(
        name="a client takes messages of any size",
        file=CLIENT,
        old="            if length > self._message_bytes_max:\n",
        new="            if False:\n",
        test=_CLIENT + "the_end_comes_after_the_last_message",
    ),
    Mutant(
        name="a client hears messages after it gave the call up",
        file=CLIENT,
        old="        while size - at >= PREFIX_BYTES and not self.closing:\n",
        new="        while size - at >= PREFIX_BYTES:\n",
        test=_CLIENT + "whoever_gives_a_call_up_hears_nothing_of_the_rest_of_a_batch",
    ),
    Mutant(
        name="a client waits for a server that has excluded its call",
        file=CLIENT,
        old="        if last < _STREAM:\n",
        new="        if False:\n",
        test=_CLIENT + "a_call_that_never_got_an_answer_ends_once",
    ),
    Mutant(
        name="a call that ends amid a message has ended well",
        file=CLIENT,
        old="        elif ended and self._partial:\n",
        new="        elif False:\n",
        test=_CLIENT + "a_call_that_ends_amid_a_message_did_not_end_well",
    ),
    Mutant(
        name="a large message is looked at for every piece of it",
        file=CLIENT,
        old="            if len(self._partial) < self._needed:",
        new="            if False:",
        test=_CLIENT + "a_large_message_in_single_bytes_is_looked_at_once",
    ),
    Mutant(
        name="a call that was given up while it was opened stays open",
        file=CLIENT_OS,
        old="        self.first.cancel()\n        self.abort()\n",
        new="        self.first.cancel()\n",
        test=_CLIENT_OS + "a_call_that_is_given_up_before_it_is_open_leaves_nothing",
    ),
    Mutant(
        name="a silent connection is pinged for ever",
        file=KEEPALIVE,
        old="        if self._pinged_at is not None and self._heard_at < self._pinged_at:\n",
        new="        if False:\n",
        test=_KEEPALIVE + "who_does_not_answer_a_ping_is_lost_and_told_once",
    ),
    Mutant(
        name="the window of a stream that rests is given back",
        file=ENDPOINT,
        old="        if stream.resting:\n",
        new="        if False:\n",
        test=_TURNS + "a_client_whose_turn_is_over_may_send_its_window_and_no_more",
    ),
    Mutant(
        name="a client that says much is handled at once",
        file=SESSIONS,
        old="min(MESSAGES_AT_A_TIME, len(self._untaken))",
        new="len(self._untaken)",
        test=_TURNS + "what_is_said_at_once_is_handled_some_at_a_time_and_in_order",
    ),
    Mutant(
        name="what is kept for all clients has no end",
        file="wire/budget.py",
        old="        while self.kept_bytes > self.bytes_max:\n",
        new="        while False:\n",
        test=_BUDGET + "crowds_that_do_not_read_are_cut_off_as_far_as_needed_and_who_reads_is_served",
    ),
    Mutant(
        name="of all clients any is cut off",
        file="wire/budget.py",
        old="            largest = max(self.shares, key=_kept_bytes)\n",
        new="            largest = next(iter(self.shares))\n",
        test="tests/unit/wire/test_budget.py::test_who_keeps_most_is_cut_off_first_and_only_as_many_as_needed",
    ),
    Mutant(
        name="what a socket holds is not counted",
        file=SERVER_OS,
        old="        self._share.set(self.connection.count() + held)\n",
        new="        self._share.set(self.connection.count())\n",
        test=_BUDGET + "crowds_that_do_not_read_are_cut_off_as_far_as_needed_and_who_reads_is_served",
    ),
    Mutant(
        name="what waits for a session is not counted",
        file=SESSIONS,
        old="            kept=self._unsent.set,\n",
        new="",
        test=_BUDGET + "crowds_that_do_not_read_are_cut_off_as_far_as_needed_and_who_reads_is_served",
    ),
    Mutant(
        name="what waits for its turn in a session is not counted",
        file=SESSIONS,
        old="            session.untaken.set(MESSAGE_BYTES * len(self._untaken))\n        else:",
        new="        else:",
        test=_TURNS + "what_waits_for_its_turn_counts_and_the_most_of_it_is_cut_off",
    ),
    Mutant(
        name="a call that gives bytes of its request back may be refused that",
        file=CONNECTION,
        old=" > self._request_bytes_noticed and more > 0:",
        new=" > self._request_bytes_noticed:",
        test=_ATTACKS + "who_goes_beyond_the_bound_is_left_by_every_call",
    ),
    Mutant(
        name="a large window is given back by halves",
        file=ENDPOINT,
        old="min(limits.stream_window_bytes // 2, GRANT_BYTES)",
        new="limits.stream_window_bytes // 2",
        test=_CONNECTION + "who_sends_much_hears_something_before_a_slow_link_has_carried_half_a_window",
    ),
    Mutant(
        name="what came before anybody listened is lost",
        file=CLIENT_OS,
        old="            self._early.append(message)\n",
        new="            pass\n",
        test=_CLIENT_OS + "what_came_before_anybody_listened_is_heard_in_order_and_then_the_end",
    ),
    Mutant(
        name="who is accepted while the server stops may stay",
        file=SERVER_OS,
        old="        return not self._stopping and ",
        new="        return ",
        test="tests/integration/wire/test_http2_unfriendly.py::test_who_was_accepted_just_before_a_stop_is_cut_off_too",
    ),
    Mutant(
        name="a socket takes a flush that failed for one that is to come",
        file=SOCKET,
        old="        finally:  # whoever fails in it must not hold up what is sent later\n            self._scheduled",
        new="        finally:\n            pass\n        self._scheduled",
        test=_CLIENT_OS + "one_who_fails_to_send_what_it_gathered_holds_nobody_else_up",
    ),
    Mutant(
        name="a lost connection keeps what it was to send",
        file=ENDPOINT,
        old="        self._output.clear()\n        self._backlog_bytes = 0\n",
        new="",
        test=_CONNECTION + "a_lost_connection_keeps_nothing_that_it_was_to_send",
    ),
    Mutant(
        name="a session that is over keeps what it is sent",
        file=SESSIONS,
        old="        if not self._is_over:\n",
        new="        if True:\n",
        test=_TURNS + "a_session_that_is_over_keeps_nothing_of_what_it_is_sent",
    ),
)
