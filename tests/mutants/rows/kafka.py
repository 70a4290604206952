"""The group commit over Kafka: what a verdict means, and to whom."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import KAFKA, KAFKA_CLIENT, RDKAFKA, WORLDS

VERDICTS = (
    Mutant(
        name="late-success-for-a-new-batch",
        bug="A verdict settles whatever is out in its partition: an old producer's late success stands for new events.",
        file="adapters/outbound/kafka/publisher.py",
        old="            settled = partial(self._judge, generation, batch)\n",
        new="""\
            lane = self._lanes[batch.partition]
            settled = lambda verdict, lane=lane: self._judge(generation, lane.out or batch, verdict)
""",
        tests=(f"{KAFKA}::test_a_late_confirmation_stands_for_no_other_batch", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="verdict-of-another-partition",
        bug="The verdicts on all batches that go out together reach the last of them.",
        file="adapters/outbound/kafka/publisher.py",
        old="            settled = partial(self._judge, generation, batch)\n",
        new="            settled = lambda verdict: self._judge(generation, batch, verdict)\n",
        tests=(f"{KAFKA}::test_other_partitions_of_a_replaced_producer_still_get_their_answer", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="late-success-counts",
        bug="A confirmation that comes after its call was answered Unknown is booked as though somebody waited.",
        file="adapters/outbound/kafka/publisher.py",
        old="""\
        if batch.settled:
            generation.doubtful -= 1
            self.late_acks += isinstance(verdict, Appended)
            return
""",
        new="",
        tests=(f"{KAFKA}::test_a_late_confirmation_is_counted_and_changes_no_answer",),
    ),
    Mutant(
        name="lost-is-not-stored",
        bug="A batch whose answer got lost is answered NotStored.",
        file="adapters/outbound/kafka/publisher.py",
        old="                self._answer(batch.settle(Unknown(cause)))\n",
        new="                self._answer(batch.settle(NotStored(cause)))\n",
        tests=(
            f"{KAFKA}::test_a_lost_batch_is_unknown_and_its_producer_replaced",
            f"{KAFKA}::test_whatever_kafka_does_no_answer_is_false",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="deadline-is-not-stored",
        bug="A batch without a confirmation at the deadline is answered NotStored, though it is out.",
        file="adapters/outbound/kafka/publisher.py",
        old="        self._answer(batch.settle(Unknown(cause)))\n\n    def _answer",
        new="        self._answer(batch.settle(NotStored(cause)))\n\n    def _answer",
        tests=(
            f"{KAFKA}::test_no_confirmation_within_the_deadline_is_unknown",
            f"{KAFKA}::test_close_tells_those_whose_batch_is_out_that_it_is_unknown",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="denied-producer-stays",
        bug="After it was denied, a producer whose sequence has a gap stays in service.",
        file="adapters/outbound/kafka/publisher.py",
        old="""\
                self._generations.retire(generation, reason)
                self._answer(batch.settle(NotStored(reason)))
""",
        new="                self._answer(batch.settle(NotStored(reason)))\n",
        tests=(f"{KAFKA}::test_a_producer_that_was_denied_is_replaced",),
    ),
    Mutant(
        name="lost-is-sent-again",
        bug="A batch whose answer got lost is sent again without asking, and may be stored twice.",
        file="adapters/outbound/kafka/publisher.py",
        old="                self._answer(batch.settle(Unknown(cause)))\n",
        new="                self._put_back([batch])\n",
        tests=(f"{KAFKA}::test_a_lost_batch_is_unknown_and_its_producer_replaced", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="poisoned-producer-stays",
        bug="After a failed batch the producer stays in service, whose partition takes nothing any more.",
        file="adapters/outbound/kafka/publisher.py",
        old="                self._generations.retire(generation, cause)\n                self._answer",
        new="                self._answer",
        tests=(f"{KAFKA}::test_a_lost_batch_is_unknown_and_its_producer_replaced", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="one-bad-record-refuses-all",
        bug="A batch that was turned down for one record is refused as a whole, other tenants' events with it.",
        file="adapters/outbound/kafka/publisher.py",
        old="        if batch.records == 1:\n",
        new="        if batch.records:\n",
        tests=(f"{KAFKA}::test_one_bad_record_is_refused_and_its_company_stored_in_order", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="not-taken-is-forgotten",
        bug="A batch that the producer did not take, and the next one may, is lost from sight.",
        file="adapters/outbound/kafka/publisher.py",
        old="        self._put_back([batch])\n        self._generations",
        new="        self._free(batch)\n        self._generations",
        tests=(f"{KAFKA}::test_a_batch_that_a_producer_does_not_take_is_sent_by_the_next",),
    ),
    Mutant(
        name="stall-is-a-deadline",
        bug="After the event loop was held up, calls expire before the confirmations in the sockets are read.",
        file="adapters/outbound/kafka/calls.py",
        old="        return self._lasts and not lasted\n",
        new="        return False\n",
        tests=(
            f"{KAFKA}::test_answers_in_the_sockets_are_read_first_after_the_loop_was_held_up",
            f"{RDKAFKA}::test_a_loop_that_was_held_up_reads_confirmations_before_anything_expires",
        ),
    ),
    Mutant(
        name="unanswered-is-not-stored",
        bug="What has no outcome at the deadline is NotStored, in the bookkeeping that both publishers share.",
        file="adapters/outbound/kafka/calls.py",
        old='_UNSETTLED = Unknown("no confirmation within the deadline")\n',
        new="""\
from customersignal_ingest.domain.outcome import NotStored

_UNSETTLED = NotStored("no confirmation within the deadline")
""",
        tests=(f"{RDKAFKA}::test_what_is_not_confirmed_by_the_deadline_is_unknown_and_the_rest_is_not",),
    ),
    Mutant(
        name="queue-unbounded",
        bug="The queue takes whatever comes while nothing goes out.",
        file="adapters/outbound/kafka/calls.py",
        old="        return self.records + count <= self._records_max and self.bytes + size_bytes <= self._bytes_max\n",
        new="        return self.records + count <= self._records_max\n",
        tests=(
            f"{KAFKA}::test_the_queue_is_bounded_in_bytes",
            f"{RDKAFKA}::test_what_does_not_fit_into_the_queue_is_not_stored",
        ),
    ),
    Mutant(
        name="queue-never-empties",
        bug="What was answered goes on counting as in flight, until nothing is taken any more.",
        file="adapters/outbound/kafka/calls.py",
        old="        self.records -= len(call.records)\n",
        new="",
        tests=(f"{KAFKA}::test_a_full_queue_takes_nothing_more_and_recovers", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="close-does-not-wait",
        bug="Closing the publisher gives up what is about to be confirmed.",
        file="adapters/outbound/kafka/publisher.py",
        old="        await self._in_flight.wait(CLOSE_TIMEOUT_S)\n        self._give_up_waiting",
        new="        self._give_up_waiting",
        tests=(f"{KAFKA}::test_close_waits_for_what_is_about_to_be_confirmed",),
    ),
    Mutant(
        name="ready-without-confirmations",
        bug="The process is ready though no confirmation comes.",
        file="adapters/outbound/kafka/calls.py",
        old="        elif waited_s > STUCK_S:\n",
        new="        elif waited_s > 1000 * STUCK_S:\n",
        tests=(
            f"{KAFKA}::test_ping_raises_while_confirmations_do_not_come",
            f"{RDKAFKA}::test_ping_says_when_no_confirmation_comes",
        ),
    ),
    Mutant(
        name="ready-again-too-early",
        bug="After calls that waited in vain the process is ready for three seconds with each new call.",
        file="adapters/outbound/kafka/calls.py",
        old="            if waited_s > 0 or now - self.failed_at < DOUBT_S:\n",
        new="            if waited_s > STUCK_S:\n",
        tests=(
            f"{KAFKA}::test_after_a_call_that_waited_in_vain_only_a_confirmation_makes_ping_return",
            f"{RDKAFKA}::test_after_a_call_that_waited_in_vain_only_a_confirmation_makes_ping_return",
        ),
    ),
    Mutant(
        name="ready-while-clients-pause",
        bug="After calls that waited in vain the process is ready as soon as nobody waits.",
        file="adapters/outbound/kafka/calls.py",
        old="            if waited_s > 0 or now - self.failed_at < DOUBT_S:\n",
        new="            if waited_s > 0:\n",
        tests=(
            f"{KAFKA}::test_that_nobody_waits_after_a_call_in_vain_is_no_sign_of_health_for_ten_seconds",
            f"{RDKAFKA}::test_that_nobody_waits_after_a_call_in_vain_is_no_sign_of_health_for_ten_seconds",
        ),
    ),
)

LANES = (
    Mutant(
        name="parts-wait-for-the-clock",
        bug="The parts of a batch that was turned down wait for the next tick, with all that waits behind them.",
        file="adapters/outbound/kafka/publisher.py",
        old="        lane.put_back(batches)\n        self._make_due(lane)\n",
        new="        lane.put_back(batches)\n",
        tests=(f"{KAFKA}::test_what_a_replaced_producer_was_turned_down_goes_out_in_parts_by_the_new_one_at_once",),
    ),
    Mutant(
        name="queue-waits-for-the-clock",
        bug="What waits behind a batch that is out waits for the next tick once that is confirmed.",
        file="adapters/outbound/kafka/publisher.py",
        old="            if lane.waiting:\n                self._make_due(lane)\n\n    def _put_back",
        new="\n    def _put_back",
        tests=(f"{KAFKA}::test_what_comes_while_a_batch_is_out_goes_together_after_it",),
    ),
    Mutant(
        name="offset-of-the-batch",
        bug="The receipts of each call begin with the batch's first place.",
        file="adapters/outbound/kafka/batch.py",
        old="            outcomes = call.outcomes\n            for",
        new="""\
            outcomes = call.outcomes
            offsets = repeat(None) if base is None else count(base)
            for\
""",
        tests=(f"{KAFKA}::test_calls_that_come_together_travel_in_one_batch", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="offset-skipped",
        bug="Between two calls of a batch one place is skipped, because zip takes from its first argument first.",
        file="adapters/outbound/kafka/batch.py",
        old="            for index, offset in zip(indices, offsets, strict=False):",
        new="            for offset, index in zip(offsets, indices, strict=False):",
        tests=(f"{KAFKA}::test_calls_that_come_together_travel_in_one_batch", f"{WORLDS}[0]"),
    ),
    Mutant(
        name="receipt-off-by-one",
        bug="Each receipt names the place behind the record's.",
        file="adapters/outbound/kafka/batch.py",
        old="repeat(None) if base is None else count(base)",
        new="repeat(None) if base is None else count(base + 1)",
        tests=(
            f"{KAFKA}::test_calls_that_come_together_travel_in_one_batch",
            f"{KAFKA}::test_whatever_kafka_does_no_answer_is_false",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="two-batches-at-once",
        bug="A batch goes out while another of its partition is out, so that a retry can turn their order around.",
        file="adapters/outbound/kafka/publisher.py",
        old="        if lane.out is not None or not lane.waiting or generation",
        new="        if not lane.waiting or generation",
        tests=(f"{WORLDS}[0]",),
    ),
    Mutant(
        name="halves-change-places",
        bug="The parts of a batch that was turned down are sent in the wrong order.",
        file="adapters/outbound/kafka/batch.py",
        old="        self.waiting.extendleft(reversed(batches))\n",
        new="        self.waiting.extendleft(batches)\n",
        tests=(f"{KAFKA}::test_one_bad_record_is_refused_and_its_company_stored_in_order",),
    ),
    Mutant(
        name="rest-goes-last",
        bug="What did not fit into a batch goes behind whatever came after it.",
        file="adapters/outbound/kafka/batch.py",
        old="            self.waiting.appendleft(rest)\n",
        new="            self.waiting.append(rest)\n",
        tests=(f"{KAFKA}::test_what_finds_no_room_goes_before_what_came_later",),
    ),
    Mutant(
        name="rest-forgotten",
        bug="Records that find no room in a batch are forgotten.",
        file="adapters/outbound/kafka/batch.py",
        old="        if rest is not None:\n            self.waiting.appendleft(rest)\n",
        new="",
        tests=(f"{KAFKA}::test_a_full_batch_makes_room_for_the_next_in_order",),
    ),
    Mutant(
        name="overdue-is-sent-all-the-same",
        bug="A batch that waited past its deadline is answered NotStored, and goes out later.",
        file="adapters/outbound/kafka/batch.py",
        old="""\
        late = []
        while self.waiting and self.waiting[0].deadline <= now:
            late.append(self.waiting.popleft())
""",
        new="        late = [each for each in self.waiting if each.deadline <= now and not each.settled]\n",
        tests=(
            f"{KAFKA}::test_what_was_never_sent_within_the_deadline_is_not_stored_and_never_sent",
            f"{WORLDS}[0]",
        ),
    ),
    Mutant(
        name="given-up-and-sent",
        bug="What is told that Kafka is away goes out all the same once it is back.",
        file="adapters/outbound/kafka/batch.py",
        old="        waiting, self.open = list(self.waiting), None\n        self.waiting.clear()\n",
        new="        waiting, self.open = list(self.waiting), None\n",
        tests=(f"{WORLDS}[0]",),
    ),
    Mutant(
        name="sent-without-a-leader",
        bug="A batch goes out to a partition without a leader, where its fate gets unknown.",
        file="adapters/outbound/kafka/publisher.py",
        old="        return generation.producer.has_leader(lane.partition)\n",
        new="        return True\n",
        tests=(
            f"{KAFKA}::test_what_was_never_sent_within_the_deadline_is_not_stored_and_never_sent",
            f"{KAFKA}::test_a_partition_is_served_as_soon_as_it_has_a_leader_again",
        ),
    ),
    Mutant(
        name="added-partitions-unused",
        bug="Partitions that are added get nothing until the next start.",
        file="adapters/outbound/kafka/publisher.py",
        old="        if partitions != self._partition_of.partitions:\n",
        new="        if not self._partition_of.partitions:\n",
        tests=(f"{KAFKA}::test_partitions_that_are_added_are_used",),
    ),
    Mutant(
        name="oversized-is-sent",
        bug="A record over the topic's limit goes out, is turned down, and costs its producer.",
        file="adapters/outbound/kafka/publisher.py",
        old="            if batch.builder.size() <= bytes_max:\n",
        new="            if batch.builder.size():\n",
        tests=(f"{KAFKA}::test_a_record_over_the_topics_limit_is_refused_unsent",),
    ),
    Mutant(
        name="headers-dropped",
        bug="Records lose their headers on the way into a batch.",
        file="adapters/outbound/kafka/client.py",
        old="[*record.headers]",
        new="[]",
        tests=(
            f"{KAFKA_CLIENT}::test_records_that_come_in_shares_are_the_batch_that_aiokafka_makes_of_them_one_by_one",
        ),
    ),
    Mutant(
        name="share-counted-as-whole",
        bug="Of a share that found room for a part all counts as sent, and what found none gets a place it never had.",
        file="adapters/outbound/kafka/batch.py",
        old="            if taken < len(indices):\n",
        new="            if not taken:\n",
        tests=(f"{KAFKA}::test_a_full_batch_makes_room_for_the_next_in_order",),
    ),
    Mutant(
        name="records-not-counted",
        bug="A batch says that it has a record less than it has, so that the next one's numbers overlap with its own.",
        file="adapters/outbound/kafka/client.py",
        old="        self._relative_offset = at\n",
        new="        self._relative_offset = max(at - 1, 1)\n",
        tests=(
            f"{KAFKA_CLIENT}::test_records_that_come_in_shares_are_the_batch_that_aiokafka_makes_of_them_one_by_one",
        ),
    ),
)
