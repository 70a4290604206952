"""What is stored, under which id, and for whom."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import EVENT_ID, HTTP, LAW, RULES, STDIN, UNIT, WORLDS

IDENTITY = (
    Mutant(
        name="new-id-for-each-attempt",
        bug="An event that is sent again with its idempotency key gets a new event id.",
        file="domain/rules.py",
        old="event_id=new_id(received_at) if key is None else derived_id(tenant.tenant_id, project_id, key),",
        new="event_id=new_id(received_at),",
        tests=(f"{RULES}::test_with_an_idempotency_key_the_id_follows_from_it", LAW, f"{WORLDS}[0]"),
    ),
    Mutant(
        name="header-of-idempotency-ignored",
        bug="The header Idempotency-Key is not handed on, so each attempt gets a new event id.",
        file="adapters/inbound/http/events.py",
        old='key, trace = exchange.headers.get("idempotency-key"),',
        new="key, trace = None,",
        tests=(f"{HTTP}/test_single.py::test_the_header_idempotency_key_stands_for_the_field",),
    ),
    Mutant(
        name="id-without-tenant",
        bug="Two tenants that use the same idempotency key get the same event id.",
        file="domain/event_id.py",
        old="    parts = (tenant_id, ",
        new='    parts = ("", ',
        tests=(f"{UNIT}/domain/test_event_id.py::test_different_triples_give_different_ids", LAW, f"{WORLDS}[0]"),
    ),
    Mutant(
        name="tenant-from-the-body",
        bug="The tenant that an event names takes the place of the API key's.",
        file="domain/rules.py",
        old="    try:\n        fields, properties, extra =",
        new="""\
    import json
    from contextlib import suppress
    from dataclasses import replace

    with suppress(ValueError, AttributeError, RecursionError):
        tenant = replace(tenant, tenant_id=json.loads(payload).get("tenant_id") or tenant.tenant_id)
    try:
        fields, properties, extra =\
""",
        tests=(f"{RULES}::test_a_tenant_of_another_is_rejected",),
    ),
    Mutant(
        name="bytes-re-encoded",
        bug="Properties are read and written anew: 1.0 keeps, 1e2 becomes 100.0, long decimals lose digits.",
        file="domain/rules.py",
        old="        properties=properties,\n",
        new='        properties=(lambda json: json.dumps(json.loads(properties)).encode())(__import__("json")),\n',
        tests=(
            f"{HTTP}/test_single.py::test_every_number_and_string_is_stored_as_it_was_sent",
            f"{RULES}::test_any_json_object_is_kept_byte_for_byte_as_properties",
            LAW,
        ),
    ),
    Mutant(
        name="fields-sorted",
        bug="Unknown fields are stored in another order than they were sent in.",
        file="domain/rules.py",
        old="    return join_object((name, value) for name, value in sent.items() if name not in _KNOWN)\n",
        new="    return join_object(sorted((n, v) for n, v in sent.items() if n not in _KNOWN))\n",
        tests=(f"{RULES}::test_extra_is_kept_byte_for_byte",),
    ),
    Mutant(
        name="key-without-tenant",
        bug="The record's key leaves the tenant out, so users of two tenants are taken for one.",
        file="domain/event.py",
        old='        key=f"{tenant_id}:{event.user_id',
        new='        key=f"{event.user_id',
        tests=(
            f"{UNIT}/domain/test_encode.py::test_the_key_is_the_tenant_and_the_first_of_user_session_and_event",
            LAW,
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="tenant-of-another-request",
        bug="The routes keep the tenant in a field of their own, where the next request puts its own meanwhile.",
        file="adapters/inbound/http/events.py",
        old="""\
        tenant = await self._tenant(exchange)
        encoding = _encoding(exchange)
        with self._admission.lease(tenant.tenant_id) as lease:
            payload = await self._one_body.read(receive, exchange, lease, encoding, events=1)
            key, trace = exchange.headers.get("idempotency-key"), asked.traceparent_of(exchange.headers)
            receipt = await self._ingest(tenant, [payload],\
""",
        new="""\
        self._whose = await self._tenant(exchange)
        encoding = _encoding(exchange)
        with self._admission.lease(self._whose.tenant_id) as lease:
            payload = await self._one_body.read(receive, exchange, lease, encoding, events=1)
            key, trace = exchange.headers.get("idempotency-key"), asked.traceparent_of(exchange.headers)
            receipt = await self._ingest(self._whose, [payload],\
""",
        tests=(f"{WORLDS}[0]",),
    ),
    Mutant(
        name="guess-for-a-count",
        bug="What a batch holds of the bounds stays what its size made likely, however many events it has.",
        file="adapters/inbound/http/events.py",
        old="            lease.hold(events=len(payloads))\n",
        new="",
        tests=(f"{HTTP}/test_batch.py::test_the_events_of_a_batch_are_in_flight_until_the_answer_is_sent",),
    ),
    Mutant(
        name="same-random-bits",
        bug="Events that arrive within a millisecond get one id.",
        file="domain/event_id.py",
        old="self._ends.pop()",
        new="self._ends[-1]",
        tests=(f"{EVENT_ID}::test_fresh_ids_of_one_moment_differ", LAW, f"{WORLDS}[0]"),
    ),
    Mutant(
        name="id-parts-run-together",
        bug="Tenant, project and idempotency key are joined without their lengths, so that two triples can look alike.",
        file="domain/event_id.py",
        old="len(part).to_bytes(4) + part for part",
        new="part for part",
        tests=(f"{EVENT_ID}::test_moving_text_from_one_part_to_the_next_gives_another_id",),
    ),
    Mutant(
        name="id-without-project",
        bug="Two projects of a tenant that use the same idempotency key get the same event id.",
        file="domain/event_id.py",
        old='"" if project_id is None else "+" + project_id',
        new='""',
        tests=(f"{EVENT_ID}::test_different_triples_give_different_ids",),
    ),
    Mutant(
        name="key-by-session",
        bug="The record's key is the session before the user, so that one user's events part ways.",
        file="domain/event.py",
        old="event.user_id or event.session_id or event.event_id",
        new="event.session_id or event.user_id or event.event_id",
        tests=(f"{UNIT}/domain/test_encode.py::test_the_key_is_the_tenant_and_the_first_of_user_session_and_event",),
    ),
    Mutant(
        name="partition-keeps-the-sign",
        bug="Half of the keys go elsewhere than with every other client, where partitions are no power of two.",
        file="domain/partition.py",
        old="(murmur2(key) & _WITHOUT_SIGN) % partitions",
        new="murmur2(key) % partitions",
        tests=(f"{UNIT}/domain/test_partition.py::test_a_negative_hash_loses_its_sign_before_the_division",),
    ),
    Mutant(
        name="clients-clock",
        bug="A record is dated with the client's clock, so that brokers turn it down, or delete it at once.",
        file="domain/event.py",
        old="        timestamp_ms=timestamp_ms,\n",
        new='        timestamp_ms=unix_ms(datetime.fromisoformat(event.timestamp.replace("Z", "+00:00"))),\n',
        tests=(f"{UNIT}/domain/test_encode.py::test_the_timestamp_is_the_moment_of_arrival",),
    ),
)

RULES_OF_EVENTS = (
    Mutant(
        name="project-not-checked",
        bug="A key that is bound to a project lets in events of another.",
        file="domain/rules.py",
        old="    if tenant.project_id is not None and project_id not in (None, tenant.project_id):\n",
        new="    if tenant.project_id is not None and project_id == tenant.tenant_id:\n",
        tests=(
            f"{RULES}::test_another_project_than_the_bound_one_is_rejected",
            f"{HTTP}/test_single.py::test_an_event_of_another_project_than_the_keys_is_422",
        ),
    ),
    Mutant(
        name="two-keys-one-wins",
        bug="Where header and field have different idempotency keys, the header wins in silence.",
        file="domain/rules.py",
        old="    if within not in (None, beside):\n",
        new="    if within not in (None, beside, within):\n",
        tests=(
            f"{RULES}::test_a_different_key_beside_and_within_is_an_invalid_request",
            f"{HTTP}/test_single.py::test_an_idempotency_key_in_header_and_field_that_differs_is_400",
        ),
    ),
    Mutant(
        name="repeated-field",
        bug="Of a field that is there twice the last one counts, and other readers see the first.",
        file="domain/strict_json.py",
        old="    good = _adds_up(payload, sent, sent.values(), punctuation) and not _may_have_nul(payload)\n",
        new="    good = not _may_have_nul(payload)\n",
        tests=(f"{RULES}::test_a_field_must_not_be_there_twice",),
    ),
    Mutant(
        name="nul-let-in",
        bug="A NUL character within properties is let in, on which consumers choke.",
        file="domain/strict_json.py",
        old='b"\\\\u0000" in text',
        new='b"\\0" in text',
        tests=(f"{RULES}::test_half_surrogates_and_nul_are_rejected_as_values",),
    ),
    Mutant(
        name="depth-unbounded",
        bug="Objects may be nested as deep as the parser can follow.",
        file="domain/strict_json.py",
        old=" or _is_too_deep(payload, values.values(), depth_max):\n",
        new=":\n",
        tests=(f"{RULES}::test_nesting_must_not_be_deeper",),
    ),
    Mutant(
        name="value-in-the-message",
        bug="The message of a rejection repeats the client's value.",
        file="domain/rules.py",
        old='f"{field} must be a string, not {kind_of(value)}"',
        new='f"{field} must be a string, not {value!r}"',
        tests=(
            f"{RULES}::test_a_message_never_repeats_the_value",
            f"{HTTP}/test_edge.py::test_no_answer_echoes_a_key_or_a_value",
        ),
    ),
    Mutant(
        name="long-line-cut",
        bug="A line of standard input that is too long is cut, and its beginning taken for the event.",
        file="adapters/inbound/stdin.py",
        old="        self._keep_max = line_bytes_max + 1  #",
        new="        self._keep_max = line_bytes_max  #",
        tests=(f"{STDIN}::test_a_line_that_is_too_long_is_never_taken_for_its_beginning",),
    ),
)
