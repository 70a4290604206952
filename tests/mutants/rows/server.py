"""The HTTP server: what is read of a connection, in which order it is answered, and how it ends."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import CONNECTION, DEADLINES, HTTP, UNIT

CONNECTIONS = (
    Mutant(
        name="answer-to-another-request",
        bug="Of requests that wait on one connection the last is worked on, and its answer sent for the first.",
        file="adapters/inbound/http/server/connection.py",
        old="            self._ground.run(self._requests[0])\n",
        new="            self._ground.run(self._requests[-1])\n",
        tests=(f"{CONNECTION}::test_requests_on_one_connection_are_answered_in_their_order",),
    ),
    Mutant(
        name="begun-behind-the-last",
        bug="A request behind one that ends its connection is begun, and stored without an answer.",
        file="adapters/inbound/http/server/connection.py",
        old="        if self._last:\n            request.answered",
        new="        if self._last and self._deaf:\n            request.answered",
        tests=(f"{CONNECTION}::test_what_comes_behind_the_last_request_is_dropped_while_its_answer_is_owed",),
    ),
    Mutant(
        name="dripping-gains-time",
        bug="Each byte that drips in puts off the deadline of a head.",
        file="adapters/inbound/http/server/connection.py",
        old="        if owed is not self._owed:\n",
        new="        if owed:\n",
        tests=(f"{DEADLINES}::test_a_head_has_a_deadline_whatever_drips_in",),
    ),
    Mutant(
        name="close-takes-the-answer-back",
        bug="A connection is closed upon what is unread, which takes its last answer back.",
        file="adapters/inbound/http/server/connection.py",
        old="            self._transport.write_eof()\n",
        new="            self._transport.close()\n",
        tests=(
            f"{CONNECTION}::test_what_comes_after_the_last_answer_is_read_and_dropped_so_that_the_answer_is_not_lost",
        ),
    ),
    Mutant(
        name="whole-request-dropped",
        bug="A request that came whole is dropped when its client has left.",
        file="adapters/inbound/http/server/request.py",
        old="        if self._told or (self.gone and not self.whole):\n",
        new="        if self._told or self.gone:\n",
        tests=(f"{CONNECTION}::test_what_was_whole_when_its_client_left_can_be_read_afterwards",),
    ),
    Mutant(
        name="trailer-is-a-header",
        bug="A header behind a chunked body counts as one before it.",
        file="adapters/inbound/http/server/reader.py",
        old="        if self.in_head and len(self._headers) <= HEADERS_MAX:\n",
        new="        if len(self._headers) <= HEADERS_MAX:\n",
        tests=(f"{CONNECTION}::test_a_trailer_is_no_header",),
    ),
    Mutant(
        name="endless-head",
        bug="A head that never ends is read on for ever.",
        file="adapters/inbound/http/server/reader.py",
        old="        if self._unused_bytes > HEAD_BYTES_MAX:\n",
        new="        if self._unused_bytes > 1000 * HEAD_BYTES_MAX:\n",
        tests=(f"{CONNECTION}::test_what_has_no_end_is_431", f"{CONNECTION}::test_empty_lines_without_end_are_431"),
    ),
)

ALL_CONNECTIONS = (
    Mutant(
        name="end-waits-for-nobody",
        bug="At its end the server cuts requests that are about to be answered.",
        file="adapters/inbound/http/server/listener.py",
        old="                await self._quiet.wait()\n",
        new="                pass\n",
        tests=(f"{DEADLINES}::test_the_end_finds_the_idle_gone_and_the_others_answered",),
    ),
    Mutant(
        name="cut-is-finished",
        bug="The server says that all was answered, though it has cut requests.",
        file="adapters/inbound/http/server/listener.py",
        old="        finished = not self._work\n",
        new="        finished = True\n",
        tests=(f"{DEADLINES}::test_the_end_has_a_bound_and_tells_of_what_was_cut",),
    ),
    Mutant(
        name="connections-unbounded",
        bug="As many connections are taken as come.",
        file="adapters/inbound/http/server/listener.py",
        old="        if excess <= 0:\n",
        new="        if excess <= 1_000_000:\n",
        tests=(
            f"{DEADLINES}::test_there_is_room_for_one_more_where_somebody_is_idle_and_who_has_been_so_for_longest_goes",
            f"{DEADLINES}::test_whoever_comes_while_all_others_wait_for_an_answer_is_told_to_come_later",
        ),
    ),
    Mutant(
        name="length-and-chunks",
        bug="A request with a length and with chunks is taken, which a proxy in front may have read the other way.",
        file="adapters/inbound/http/guard.py",
        old="    if length is not None and coding is not None:\n",
        new="    if length is not None and coding is not None and length == coding:\n",
        tests=(f"{HTTP}/test_guard.py::test_an_ambiguous_request_is_400_and_the_connection_ends",),
    ),
    Mutant(
        name="repeated-headers-joined",
        bug="A header that counts and is there twice is taken for one.",
        file="adapters/inbound/http/guard.py",
        old="    for name in sorted(repeated & _COUNT):\n",
        new='    for name in sorted(repeated & {"host"}):\n',
        tests=(
            f"{HTTP}/test_guard.py::test_an_ambiguous_request_is_400_and_the_connection_ends",
            f"{HTTP}/test_authentication.py::test_two_keys_are_400",
        ),
    ),
    Mutant(
        name="any-host",
        bug="A host may be any text, with a path or a script within.",
        file="adapters/inbound/http/guard.py",
        old="    if not _HOST.fullmatch(host):\n",
        new="    if not _PLAIN.fullmatch(host):\n",
        tests=(f"{HTTP}/test_guard.py::test_no_host_or_two_or_a_strange_one_is_400",),
    ),
    Mutant(
        name="metrics-by-path",
        bug="Each path that anybody asks for gets a time series of its own.",
        file="adapters/inbound/http/edge.py",
        old="route=path if path in self._routes else UNMATCHED,",
        new="route=path,",
        tests=(f"{HTTP}/test_edge.py::test_metrics_are_prometheus_text_by_route_and_never_by_path",),
    ),
    Mutant(
        name="all-in-one-round",
        bug="All batches in flight are parsed in one round of the loop, in which nobody is answered.",
        file="turns.py",
        old="        if self._left > 0 and not self._waiting:\n",
        new="        if self._left or not self._waiting:\n",
        tests=(f"{UNIT}/test_turns.py::test_no_round_has_much_more_than_its_share",),
    ),
)
