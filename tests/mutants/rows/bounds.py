"""What one client may take of the process, and what it may make it do."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import HTTP, POLICIES, RULES, UNIT, WORLDS

BOUNDS = (
    Mutant(
        name="lease-lost-on-error",
        bug="What a request had leased is not given back when it ends with an error.",
        file="policies.py",
        old="        self._admission.give_back(self._tenant_id, self._events, self._size_bytes)\n",
        new="""\
        if kind is None:
            self._admission.give_back(self._tenant_id, self._events, self._size_bytes)
""",
        tests=(
            f"{UNIT}/test_policies.py::test_what_a_lease_took_is_given_back_after_an_error",
            f"{HTTP}/test_single.py::test_nothing_is_in_flight_after_any_answer",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="share-ignored",
        bug="One tenant may take all that may be in flight.",
        file="policies.py",
        old="held_events > self.tenant_events_max or held_bytes > self.tenant_bytes_max",
        new="held_events > self.events_max or held_bytes > self.bytes_max",
        tests=(f"{UNIT}/test_policies.py::test_a_tenant_gets_no_more_than_its_share",),
    ),
    Mutant(
        name="event-limit-off-by-one",
        bug="An event of exactly the largest size is rejected.",
        file="domain/rules.py",
        old="    if len(payload) > limits.event_bytes_max:\n",
        new="    if len(payload) >= limits.event_bytes_max:\n",
        tests=(f"{RULES}::test_an_event_may_be_as_large_as_event_bytes_max",),
    ),
    Mutant(
        name="batch-limit-off-by-one",
        bug="A batch of one event more than allowed is taken.",
        file="adapters/inbound/http/events.py",
        old="    if len(payloads) > events_max:\n",
        new="    if len(payloads) > events_max + 1:\n",
        tests=(f"{HTTP}/test_batch.py::test_too_many_events_are_413_that_names_limit_and_value",),
    ),
    Mutant(
        name="chunked-body-unbounded",
        bug="A body that does not announce its length may have any.",
        file="adapters/inbound/http/body.py",
        old="        if exchange.size_bytes > bound.value:\n",
        new='        if "content-length" in exchange.headers and exchange.size_bytes > bound.value:\n',
        tests=(f"{HTTP}/test_bodies.py::test_a_body_that_grows_too_large_is_413_without_reading_on",),
    ),
    Mutant(
        name="bomb-decoded-whole",
        bug="The limit of a decoded body is not held while decoding.",
        file="adapters/inbound/http/body.py",
        old="            if size_bytes > self.decoded.value:\n",
        new="            if size_bytes > 1000 * self.decoded.value:\n",
        tests=(f"{HTTP}/test_bodies.py::test_a_bomb_is_413_without_being_decoded_whole",),
    ),
    Mutant(
        name="refused-take-is-given-back",
        bug="What was refused to a request is given back all the same when it ends, so that the bound grows.",
        file="policies.py",
        old="""\
        self._admission.take(self._tenant_id, events, size_bytes)
        self._events += events
        self._size_bytes += size_bytes
""",
        new="""\
        self._events += events
        self._size_bytes += size_bytes
        self._admission.take(self._tenant_id, events, size_bytes)
""",
        tests=(f"{POLICIES}::test_what_was_refused_is_not_given_back", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="process-bound-ignored",
        bug="Many tenants together may hold more than may be in flight.",
        file="policies.py",
        old="        if all_events > self.events_max:\n",
        new="        if events > self.events_max:\n",
        tests=(f"{POLICIES}::test_a_full_process_takes_nobody", f"{WORLDS}[50]"),
    ),
    Mutant(
        name="decoded-bytes-are-free",
        bug="What a compressed body decodes to counts for nothing of what may be in flight.",
        file="adapters/inbound/http/body.py",
        old="            lease.take(size_bytes=len(piece))\n",
        new="",
        tests=(f"{HTTP}/test_bodies.py::test_bytes_count_as_they_come_when_nothing_is_announced",),
    ),
    Mutant(
        name="slow-body-has-no-end",
        bug="A body may take as long as its sender likes, and hold what it leased.",
        file="adapters/inbound/http/events.py",
        old="Timeout(limits.body_read_timeout_s)",
        new="Timeout(limits.body_read_timeout_s + 600)",
        tests=(f"{WORLDS}[0]",),
    ),
    Mutant(
        name="rest-of-the-body-given-up",
        bug="What came of a body before its client left is taken for the whole.",
        file="adapters/inbound/http/body.py",
        old="            raise ClientGone\n",
        new="            break\n",
        tests=(f"{HTTP}/test_bodies.py::test_nothing_is_stored_for_a_client_that_leaves",),
    ),
    Mutant(
        name="length-not-compared",
        bug="A body that is shorter than announced is taken.",
        file="adapters/inbound/http/body.py",
        old="        if length is not None and len(body) != announced:\n",
        new="        if length is not None and len(body) > announced:\n",
        tests=(f"{HTTP}/test_bodies.py::test_a_body_of_another_length_than_announced_is_400",),
    ),
    Mutant(
        name="compressed-body-cut-short",
        bug="A compressed body that ends before its end is taken as far as it goes.",
        file="adapters/inbound/http/encodings.py",
        old='            yield step(member, b"") or _cut_short()\n',
        new="""\
            if not (rest := step(member, b"")):
                break
            yield rest
""",
        tests=(f"{HTTP}/test_bodies.py::test_a_compressed_body_cut_short_or_with_something_behind_it_is_400",),
    ),
)

EDGE_OF_HTTP = (
    Mutant(
        name="request-id-of-any-text",
        bug="A caller's request id is taken if it only begins well, and can break the log's lines and the headers.",
        file="adapters/inbound/http/exchange.py",
        old="_REQUEST_ID.fullmatch(asked_for)",
        new="_REQUEST_ID.match(asked_for)",
        tests=(f"{HTTP}/test_edge.py::test_another_request_id_is_replaced",),
    ),
    Mutant(
        name="any-web-page",
        bug="Pages of any origin may read the answers.",
        file="adapters/inbound/http/cors.py",
        old='        if headers.get("origin") not in self._origins:\n',
        new='        if "origin" not in headers:\n',
        tests=(f"{HTTP}/test_edge.py::test_a_page_of_another_origin_may_not",),
    ),
    Mutant(
        name="another-media-type",
        bug="A body that is not said to be of any type is taken for JSON.",
        file="adapters/inbound/http/asked.py",
        old='headers.get("content-type", "")',
        new='headers.get("content-type", "application/json")',
        tests=(f"{HTTP}/test_bodies.py::test_no_media_type_is_415",),
    ),
    Mutant(
        name="one-key-for-a-batch",
        bug="The header Idempotency-Key of a batch is let pass, though it can't stand for many events.",
        file="adapters/inbound/http/events.py",
        old="        _refuse_idempotency_header(exchange)\n",
        new="",
        tests=(f"{HTTP}/test_batch.py::test_the_header_idempotency_key_is_refused_for_a_batch",),
    ),
)
