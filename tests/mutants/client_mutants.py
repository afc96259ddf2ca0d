"""Faults planted in how the SDK carries a call to its outcome."""

from planting import Mutant

ATTEMPTS = "client/attempts.py"
DISPATCH = "client/dispatch.py"
WRITER = "client/writer.py"

_ATTEMPTS = "tests/unit/client/test_attempts.py::test_"
_OUTCOMES = "tests/unit/client/test_outcomes.py::test_"

CLIENT_MUTANTS = (
    Mutant(
        name="a call waits for an answer beyond its deadline",
        file=ATTEMPTS,
        old="        return min(self._retransmit_at, self.deadline)\n",
        new="        return self._retransmit_at\n",
        test=_ATTEMPTS + "a_call_does_not_wait_for_an_answer_beyond_its_deadline",
    ),
    Mutant(
        name="news of the leader do not end the pause of a refused call",
        file=ATTEMPTS,
        old="            if self._last_refusal is not None and view != self._view:\n",
        new="            if False:\n",
        test=_ATTEMPTS + "news_end_the_pause",
    ),
    Mutant(
        name="an answer of another kind is handed to the caller",
        file=DISPATCH,
        old="        if isinstance(answer, pending.expected):\n",
        new="        if True:\n",
        test=_OUTCOMES + "an_answer_of_another_kind_leaves_the_outcome_open",
    ),
    Mutant(
        name="a write that is over keeps its place",
        file=WRITER,
        old="                self._leave(place, size_bytes)\n",
        new="                pass\n",
        test=_OUTCOMES + "a_write_that_cannot_be_sent_does_not_hold_back_the_mark",
    ),
    Mutant(
        name="a call that is over stays among those under way",
        file=WRITER,
        old="                    self._dispatcher.end(call)\n",
        new="                    pass\n",
        test=_OUTCOMES + "cancellation_leaves_nothing_behind",
    ),
    Mutant(
        name="a write whose result is not understood was not applied",
        file="wire/commands.py",
        old='        raise Indeterminate(f"malformed result of {len(data)} bytes") from error\n',
        new='        raise InvalidRequest(f"malformed result of {len(data)} bytes") from error\n',
        test=_OUTCOMES + "a_result_that_this_release_does_not_know_leaves_the_outcome_open",
    ),
    Mutant(
        name="a client that closes connects to nodes of which it hears",
        file=DISPATCH,
        old="        if address not in self._links and not self._closed:",
        new="        if address not in self._links:",
        test="tests/unit/client/test_client.py::test_news_that_come_while_a_client_closes_open_no_connection",
    ),
)
