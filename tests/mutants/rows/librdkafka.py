"""The publisher over librdkafka."""

from tests.mutants.mutant import Mutant
from tests.mutants.tests import PRETENDED, RDKAFKA

LIBRDKAFKA = (
    Mutant(
        name="rdkafka-lost-is-not-stored",
        bug="A record whose answer got lost is answered NotStored.",
        file="adapters/outbound/kafka/librdkafka/publisher.py",
        old="                self._put(call, index, Unknown(failure.cause))\n",
        new="                self._put(call, index, NotStored(failure.cause))\n",
        tests=(f"{RDKAFKA}::test_only_what_was_certainly_not_sent_is_not_stored",),
    ),
    Mutant(
        name="rdkafka-late-success-counts",
        bug="A confirmation that comes after its call was answered Unknown is booked as though somebody waited.",
        file="adapters/outbound/kafka/librdkafka/publisher.py",
        old="""\
        if not call.remaining:
            self.late_acks += isinstance(outcome, Stored)
            return
""",
        new="",
        tests=(f"{RDKAFKA}::test_a_confirmation_after_the_deadline_is_counted",),
    ),
    Mutant(
        name="rdkafka-refused-in-doubt",
        bug="A record that was turned down twice is refused, though an earlier attempt may have been appended.",
        file="adapters/outbound/kafka/librdkafka/publisher.py",
        old="        certain = certain and call.turned_down[index]\n",
        new="",
        tests=(f"{RDKAFKA}::test_a_record_is_refused_only_if_nothing_of_it_was_appended_before",),
    ),
    Mutant(
        name="rdkafka-company-refused",
        bug="A record that was turned down for its company is refused at once.",
        file="adapters/outbound/kafka/librdkafka/publisher.py",
        old="                if index in call.turned_down:\n",
        new="                if call.turned_down.setdefault(index, certain) is not None:\n",
        tests=(f"{RDKAFKA}::test_what_was_turned_down_in_company_is_sent_again_alone_and_stored",),
    ),
    Mutant(
        name="rdkafka-careful-retries",
        bug="The producer for what was turned down tries again by itself, and its failures prove nothing.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old='        "retries": 0,\n',
        new='        "retries": 5,\n',
        tests=(f"{PRETENDED}::test_the_careful_line_sends_each_record_alone_and_once",),
    ),
    Mutant(
        name="rdkafka-leader-alone-confirms",
        bug="The leader confirms alone, and dies with what nobody else has.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old='        "acks": "all",\n',
        new='        "acks": 1,\n',
        tests=(f"{PRETENDED}::test_each_line_of_librdkafka_has_every_replica_confirm",),
    ),
    Mutant(
        name="rdkafka-retries-not-numbered",
        bug="Batches have no sequence numbers, so that a retry within the client stores them twice.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old='        "enable.idempotence": True,\n',
        new='        "enable.idempotence": False,\n',
        tests=(f"{PRETENDED}::test_the_line_for_everyday_numbers_its_batches",),
    ),
    Mutant(
        name="rdkafka-looks-once-a-second",
        bug="A partition that has a leader again gets nothing until librdkafka looks by itself, once a second.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old="                self._look_for_leaders()\n",
        new="",
        tests=(f"{RDKAFKA}::test_while_nothing_is_confirmed_a_line_looks_where_partitions_are_led",),
    ),
    Mutant(
        name="rdkafka-certain-of-everything",
        bug="Whatever failed counts as never appended, however many attempts there were.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old="        certain = self._once or 0 <= message.latency() < _FIRST_ATTEMPT_S\n",
        new="        certain = True\n",
        tests=(
            f"{RDKAFKA}::test_what_is_turned_down_was_certainly_not_appended_at_the_first_attempt_only",
            f"{RDKAFKA}::test_only_what_never_left_is_certainly_not_sent",
        ),
    ),
    Mutant(
        name="rdkafka-withdrawn-in-flight",
        bug="A record that was withdrawn while it was on its way counts as never sent.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old="_BEFORE_APPENDING = _NOT_ALLOWED | {KafkaError._PURGE_QUEUE}",
        new="_BEFORE_APPENDING = _NOT_ALLOWED | {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}",
        tests=(f"{RDKAFKA}::test_only_what_never_left_is_certainly_not_sent",),
    ),
    Mutant(
        name="rdkafka-other-partitions",
        bug="Keys go to other partitions than with every other client.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old='        "partitioner": "murmur2_random",',
        new='        "partitioner": "consistent_random",',
        tests=(f"{PRETENDED}::test_librdkafka_sends_each_key_where_we_say",),
    ),
    Mutant(
        name="rdkafka-headers-dropped",
        bug="Records lose their headers on the way.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old="                headers=list(record.headers),\n",
        new="",
        tests=(f"{PRETENDED}::test_what_is_sent_is_read_back_to_the_byte_at_the_place_that_was_said",),
    ),
    Mutant(
        name="rdkafka-dead-line-stays",
        bug="A producer that will never deliver again stays in service.",
        file="adapters/outbound/kafka/librdkafka/lines.py",
        old="        elif line.dead():\n            self.retire(line, line.dead())\n",
        new="",
        tests=(f"{RDKAFKA}::test_a_dead_line_is_replaced_within_a_second_and_counted",),
    ),
    Mutant(
        name="rdkafka-away-unnoticed",
        bug="Brokers that leave later are not noticed.",
        file="adapters/outbound/kafka/librdkafka/outlook.py",
        old="        if (self._doubt or self.away) and self._clock() >= self._ask_at:\n",
        new="        if self.away and self._clock() >= self._ask_at:\n",
        tests=(
            f"{RDKAFKA}::test_brokers_that_leave_later_are_noticed_while_records_wait",
            f"{RDKAFKA}::test_brokers_that_leave_later_are_noticed_when_the_line_says_so",
        ),
    ),
    Mutant(
        name="rdkafka-any-certificate",
        bug="Certificates of brokers are not verified.",
        file="adapters/outbound/kafka/librdkafka/client.py",
        old='            "enable.ssl.certificate.verification": True,\n',
        new='            "enable.ssl.certificate.verification": False,\n',
        tests=(f"{RDKAFKA}::test_over_tls_certificates_and_names_are_verified",),
    ),
)
