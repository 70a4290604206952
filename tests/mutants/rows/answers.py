"""What a request is answered, by the use case, the deadline and HTTP."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import BOOTSTRAP, HTTP, LAW, POLICIES, RULES, UNIT, WORLDS

ANSWERS = (
    Mutant(
        name="answers-before-the-store",
        bug="The use case answers Stored without waiting for the publisher.",
        file="ingest.py",
        old="    outcomes = await publisher.publish(records) if records else ()\n",
        new="""\
    import asyncio

    from customersignal_ingest.domain.outcome import Stored

    asyncio.ensure_future(publisher.publish(records))
    outcomes = [Stored("events_raw", 0, None)] * len(records)
""",
        tests=(LAW, f"{WORLDS}[0]"),
    ),
    Mutant(
        name="deadline-is-stored",
        bug="A publisher that does not answer in time is taken to have stored.",
        file="policies.py",
        old='            return [Unknown("no answer within the deadline")] * len(records)\n',
        new="""\
            from customersignal_ingest.domain.outcome import Stored

            return [Stored("events_raw", 0, None)] * len(records)
""",
        tests=(f"{UNIT}/test_policies.py::test_no_answer_in_time_is_unknown",),
    ),
    Mutant(
        name="unknown-is-202",
        bug="An outcome that nobody knows is answered 202.",
        file="adapters/inbound/http/answers.py",
        old="    Code.OUTCOME_UNKNOWN: Meaning(\n        504,",
        new="    Code.OUTCOME_UNKNOWN: Meaning(\n        202,",
        tests=(
            f"{HTTP}/test_single.py::test_an_event_of_which_nothing_is_known_is_504_with_retry_after_and_its_id",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="unknown-is-503",
        bug="An outcome that nobody knows is answered 503, as though the event were certainly not stored.",
        file="adapters/inbound/http/answers.py",
        old="        case NotStored():\n",
        new="        case NotStored() | Unknown():\n",
        tests=(
            f"{HTTP}/test_single.py::test_an_event_of_which_nothing_is_known_is_504_with_retry_after_and_its_id",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="cancelled-is-not-stored",
        bug="A call that was cancelled within the publisher is answered NotStored.",
        file="policies.py",
        old="""\
            # Nobody cancelled the caller: a future within the publisher was.
            self._report(error)
            return [Unknown("the publisher failed")] * len(records)
""",
        new="""\
            from customersignal_ingest.domain.outcome import NotStored

            self._report(error)
            return [NotStored("cancelled")] * len(records)
""",
        tests=(f"{UNIT}/test_policies.py::test_a_publisher_that_raises_is_unknown",),
    ),
    Mutant(
        name="error-after-append-is-not-stored",
        bug="A publisher that raises, perhaps after it has stored, is answered NotStored.",
        file="policies.py",
        old="""\
        except Exception as error:  # noqa: BLE001  A stranger's bug must not become a false answer.
            self._report(error)
            return [Unknown("the publisher failed")] * len(records)
""",
        new="""\
        except Exception as error:
            from customersignal_ingest.domain.outcome import NotStored

            self._report(error)
            return [NotStored("it raised")] * len(records)
""",
        tests=(f"{UNIT}/test_policies.py::test_a_publisher_that_raises_is_unknown", LAW),
    ),
    Mutant(
        name="too-few-answers-are-trusted",
        bug="A publisher that answers fewer times than it got records is believed.",
        file="domain/outcome.py",
        old="len(outcomes) == records  # What",
        new="len(outcomes) >= records  # What",
        tests=(f"{UNIT}/domain/test_outcome.py::test_too_few_or_too_many_answers_confirm_nothing",),
    ),
    Mutant(
        name="no-deadline",
        bug="A publisher that never answers is waited for without end.",
        file="policies.py",
        old="        self._timeout = Timeout(timeout_s)\n",
        new="        self._timeout = Timeout(100 * timeout_s)\n",
        tests=(f"{POLICIES}::test_the_deadline_is_kept_to_the_moment",),
    ),
    Mutant(
        name="one-deadline-rings-once",
        bug="The timer of all deadlines rings for the first one and is not set for the next.",
        file="timeouts.py",
        old="                self._ring_at(loop, first.due)\n",
        new="",
        tests=(f"{UNIT}/test_timeouts.py::test_every_block_ends_as_with_a_timer_of_its_own",),
    ),
    Mutant(
        name="cancelled-is-too-late",
        bug="Whoever is cancelled from outside while his time is up goes on as though nobody had cancelled him.",
        file="timeouts.py",
        old="self._expired and self._task.uncancel() <= self._cancelling and",
        new="self._expired and",
        tests=(f"{UNIT}/test_timeouts.py::test_every_block_ends_as_with_a_timer_of_its_own",),
    ),
    Mutant(
        name="deadline-left-out",
        bug="The service is put together without the deadline around its publisher.",
        file="bootstrap.py",
        old="Deadline(publisher, timeout_s=settings.publish_timeout_s + _PATIENCE_S, report=report)",
        new="publisher",
        tests=(f"{BOOTSTRAP}::test_a_publisher_that_raises_answers_unknown",),
    ),
    Mutant(
        name="strange-answer-is-trusted",
        bug="Whatever a publisher answers that is none of the four outcomes is handed on as it is.",
        file="domain/outcome.py",
        old="    return outcome if isinstance(outcome, Outcome) else",
        new="    return outcome if outcome else",
        tests=(f"{UNIT}/domain/test_outcome.py::test_an_answer_that_is_no_outcome_is_unknown",),
    ),
    Mutant(
        name="unavailable-store-is-503",
        bug="A publisher that raises Unavailable, perhaps after it stored, counts as a key database that is away.",
        file="adapters/inbound/http/events.py",
        old="            receipt = await self._ingest(tenant, [payload], idempotency_key=key, traceparent=trace)\n",
        new="""\
            try:
                receipt = await self._ingest(tenant, [payload], idempotency_key=key, traceparent=trace)
            except Unavailable as error:
                raise Problem(Code.KEYS_UNAVAILABLE) from error
""",
        tests=(
            f"{HTTP}/test_edge.py::test_a_store_that_says_unavailable_by_mistake_is_no_promise_that_nothing_was_stored",
        ),
    ),
    Mutant(
        name="bug-is-503",
        bug="An error that nobody expected is answered 503: certainly not stored.",
        file="adapters/inbound/http/answers.py",
        old="        case _:\n            return Problem(Code.INTERNAL_ERROR)\n",
        new="        case _:\n            return Problem(Code.NOT_STORED)\n",
        tests=(f"{HTTP}/test_edge.py::test_a_bug_is_500_in_our_shape_without_a_trace_of_its_cause",),
    ),
)

BATCHES = (
    Mutant(
        name="results-out-of-order",
        bug="The outcomes of a batch are handed to its events in the wrong order.",
        file="domain/outcome.py",
        old="    told = iter([",
        new="    told = reversed([",
        tests=(
            f"{UNIT}/domain/test_outcome.py::test_each_payload_gets_its_own_outcome_in_order",
            LAW,
            f"{HTTP}/test_batch.py::test_each_accepted_result_has_the_id_and_receipt_of_its_record",
        ),
    ),
    Mutant(
        name="one-invalid-stops-all",
        bug="One invalid member of a batch keeps the valid ones from being stored.",
        file="ingest.py",
        old="        good = [encode(event) for event in events if isinstance(event, IngestEvent)]\n",
        new="""\
        good = [encode(event) for event in events if isinstance(event, IngestEvent)]
        good = good if len(good) == len(events) else []
""",
        tests=(
            f"{UNIT}/test_ingest.py::test_three_broken_events_of_a_hundred_are_rejected_alone",
            f"{HTTP}/test_batch.py::test_three_broken_events_of_a_hundred_are_207_and_exactly_those_are_rejected",
        ),
    ),
    Mutant(
        name="invalid-is-published",
        bug="An event with a timestamp that is none is let in.",
        file="domain/rules.py",
        old="    if not is_timestamp(text):\n",
        new="    if not text:\n",
        tests=(
            f"{RULES}::test_a_bad_timestamp_is_pointed_at",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="partial-is-202",
        bug="A batch of which only a part is stored is answered 202.",
        file="adapters/inbound/http/answers.py",
        old="    if stored == events and not listed:\n",
        new="    if stored and not listed:\n",
        tests=(
            f"{HTTP}/test_batch.py::test_a_batch_with_something_stored_is_207_whatever_the_rest",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="partly-unknown-is-503",
        bug="A batch of which one event is unknown and another not stored is answered 503: certainly not stored.",
        file="adapters/inbound/http/answers.py",
        old="    if tally[Unknown]:\n",
        new="    if tally[Unknown] and not tally[NotStored]:\n",
        tests=(
            f"{HTTP}/test_batch.py::test_a_batch_with_nothing_stored_is_as_bad_as_its_worst_outcome",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="index-off-by-one",
        bug="The results of a batch are numbered from 1.",
        file="adapters/inbound/http/answers.py",
        old="for index, result in enumerate(results)]",
        new="for index, result in enumerate(results, 1)]",
        tests=(f"{HTTP}/test_batch.py::test_the_results_say_which_event_to_send_again", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="everything-counts-as-accepted",
        bug="The answer to a batch counts all of its events as accepted.",
        file="adapters/inbound/http/answers.py",
        old='{"accepted": stored, "failed": events - stored}',
        new='{"accepted": events, "failed": events - stored}',
        tests=(
            f"{HTTP}/test_batch.py::test_three_broken_events_of_a_hundred_are_207_and_exactly_those_are_rejected",
            f"{WORLDS}[0]",
        ),
    ),
)
