"""confluent-kafka behind our seam: the one place that knows librdkafka's settings, errors and threads."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from customersignal_ingest.adapters.outbound.kafka.client import reach
from customersignal_ingest.adapters.outbound.kafka.librdkafka.delivery import (
    Burst,
    Call,
    Failure,
    Lost,
    NotSent,
    NotTaken,
    Told,
    TurnedDown,
)
from customersignal_ingest.adapters.outbound.kafka.options import Options
from customersignal_ingest.adapters.outbound.kafka.topic import Topic, look_at
from customersignal_ingest.domain.errors import ConfigurationError, Unavailable

POLL_S = 0.1  # Above 0.2 confluent-kafka waits for the whole time, whatever was reported.
MEET_S = 1.0
WITHDRAW_S = 0.5
LOOK_S = 0.2  # librdkafka looks for the leader of a partition that has none but once a second.
LINGER_MS = 5  # In place of 0, with which the sending thread takes the records of one call one by one.
RETRY_BACKOFF_MS = 250
RECONNECT_MS = 300
DENIED_S = 5.0
MESSAGE_TIMEOUT_MARGIN_MS = 500
REQUEST_BYTES_MAX = 100_000_000  # Our own limit is the topic's.
BUFFER_RECORDS_MAX = 100_000
BUFFER_KBYTES_MAX = 128 * 1024

# No retry begins earlier than a fifth below the backoff, so whatever is reported before that is the
# answer to the first attempt. Of later ones nothing is certain: an earlier attempt whose answer got
# lost may have been appended, and neither errors nor purges say so.
_FIRST_ATTEMPT_S = RETRY_BACKOFF_MS / 1000 * 0.8

_ABOUT_ITS_CONTENT = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError._INVALID_DIFFERENT_RECORD,  # noqa: SLF001  librdkafka's own codes all begin like this.
    }
)
_NOT_ALLOWED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_BEFORE_APPENDING = _NOT_ALLOWED | {KafkaError._PURGE_QUEUE}  # noqa: SLF001  as above
_ALL_BROKERS_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001  as above

log = logging.getLogger(__name__)


class Librdkafka:
    """librdkafka, as the publisher needs it."""

    def __init__(self, options: Options, /) -> None:
        self._options = options
        self._denied_until = float("-inf")

    def line(self, told: Told, /, *, batch_bytes_max: int) -> "PolledLine":
        """Start an idempotent producer; raises `ConfigurationError`."""
        return PolledLine(self._options.topic, everyday_settings(self._options, batch_bytes_max), told, self._deny)

    def careful_line(self, told: Told, /) -> "PolledLine":
        """Start a producer that sends record by record, each at most once: its failures are the record's own.

        Raises `ConfigurationError`.
        """
        return PolledLine(self._options.topic, careful_settings(self._options), told, self._deny, once=True)

    async def topic(self) -> Topic:
        """Look at the topic's settings; raises `Unavailable`."""
        return await look_at(self._options)

    async def reach(self) -> object:
        """Return if any broker answers; raises `Unavailable`, also for a while after one has denied us the topic.

        Whether we may write again nobody tells but by taking a record.
        """
        if time.monotonic() < self._denied_until:
            raise Unavailable(f"not allowed to write to {self._options.topic}")
        return await reach(self._options)

    def _deny(self) -> None:
        self._denied_until = time.monotonic() + DENIED_S


def everyday_settings(options: Options, batch_bytes_max: int, /) -> dict[str, Any]:
    """Return what librdkafka is told for a line that sends batches, and again where it is safe."""
    return _settings(options) | {
        "enable.idempotence": True,
        "batch.size": batch_bytes_max,
        "linger.ms": options.linger_ms or LINGER_MS,
        "retry.backoff.ms": RETRY_BACKOFF_MS,
    }


def careful_settings(options: Options, /) -> dict[str, Any]:
    """Return what librdkafka is told for a line that sends each record alone, and once."""
    return _settings(options) | {
        "enable.idempotence": False,
        "retries": 0,
        "batch.num.messages": 1,
        "linger.ms": 0,
        "max.in.flight.requests.per.connection": 1,
    }


def _settings(options: Options) -> dict[str, Any]:
    timeout_ms = int(options.publish_timeout_s * 1000)
    return {
        "bootstrap.servers": ",".join(options.servers),
        "client.id": options.client_id,
        "acks": "all",
        "partitioner": "murmur2_random",  # Java's; none of our keys is null, so nothing is random.
        "compression.type": options.compression,
        "allow.auto.create.topics": False,
        "message.timeout.ms": max(timeout_ms - MESSAGE_TIMEOUT_MARGIN_MS, timeout_ms // 2),
        "request.timeout.ms": options.request_timeout_ms * 3 // 4,
        "socket.timeout.ms": options.request_timeout_ms,
        "socket.connection.setup.timeout.ms": max(1000, options.request_timeout_ms),
        "socket.keepalive.enable": True,
        # A leader that came back is served within a second, and one that hangs up is not asked 20 times a second.
        "reconnect.backoff.ms": RECONNECT_MS,
        "reconnect.backoff.max.ms": RECONNECT_MS,
        "message.max.bytes": REQUEST_BYTES_MAX,
        "queue.buffering.max.messages": BUFFER_RECORDS_MAX,
        "queue.buffering.max.kbytes": BUFFER_KBYTES_MAX,
        "topic.metadata.refresh.interval.ms": 30_000,
        "topic.metadata.refresh.fast.interval.ms": 250,
        "retry.backoff.max.ms": RETRY_BACKOFF_MS,  # Which bounds the pauses between looks for a leader, too.
        **_security(options),
    }


def _security(options: Options) -> dict[str, Any]:
    security = options.security
    settings: dict[str, Any] = {"security.protocol": security.protocol}
    if "SSL" in security.protocol.split("_"):
        settings |= {
            "enable.ssl.certificate.verification": True,
            "ssl.endpoint.identification.algorithm": "https",
            "ssl.ca.location": security.cafile,
            "ssl.certificate.location": security.certfile,
            "ssl.key.location": security.keyfile or security.certfile,
            "ssl.key.password": security.keyfile_password,
        }
    if security.protocol.startswith("SASL"):
        settings |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": security.password,
        }
    return {name: value for name, value in settings.items() if value is not None}


class PolledLine:
    """A confluent-kafka `Producer` and a thread of its own that polls it.

    The thread gathers what is reported and takes each burst to the event loop at one go. It also
    ends the producer, which may take a moment, and so never holds up the loop.
    """

    def __init__(
        self,
        topic: str,
        settings: dict[str, Any],
        told: Told,
        denied: Callable[[], None] = lambda: None,
        /,
        *,
        once: bool = False,
    ) -> None:
        """`denied` is called, in the thread, when we may not write to the topic."""
        self._topic, self._told, self._denied, self._once = topic, told, denied, once
        self._loop = asyncio.get_running_loop()
        self._burst = Burst()
        self._dead, self._lonely, self._ending = "", False, False
        self._look_at = time.monotonic() + LOOK_S
        self._over = asyncio.Event()
        self.out = 0
        try:
            self._producer: Any = Producer(settings | {"error_cb": self._heard, "logger": log})
        except KafkaException as error:
            raise ConfigurationError(f"librdkafka can't be set up: {error.args[0].str()}") from error
        threading.Thread(target=self._run, name="cs-ingest-librdkafka", daemon=True).start()

    def send(self, call: Call, index: int, /) -> None:
        """Give the record to librdkafka, which copies it."""
        record = call.records[index]
        try:
            self._producer.produce(
                self._topic,
                record.value,
                record.key,
                on_delivery=partial(self._note, call, index),
                timestamp=record.timestamp_ms,
                headers=list(record.headers),
            )
        except BufferError as error:
            raise NotTaken("queue full") from error
        except KafkaException as error:
            raise NotTaken(error.args[0].name()) from error
        self.out += 1

    def dead(self) -> str:
        """Say what was fatal."""
        return self._dead

    def lonely(self) -> bool:
        """Tell whether librdkafka has said that all brokers are down, or that we may not write."""
        lonely, self._lonely = self._lonely, False
        return lonely

    def end(self) -> None:
        """Tell the thread to end."""
        self._ending = True

    async def ended(self) -> None:
        """Wait for the thread."""
        await self._over.wait()

    # In the thread.

    def _run(self) -> None:
        try:
            self._meet()
            while not self._ending:
                self._producer.poll(POLL_S)
                self._hand_over()
                self._look_for_leaders()
            self._withdraw()
        except Exception:
            log.exception("the thread that polls librdkafka died")
        finally:
            self._dead = self._dead or "the poll thread died"
            self._producer = None  # Nobody else has it: librdkafka ends here, before the next line.
            self._tell(self._over.set)

    def _meet(self) -> None:
        """Connect and learn the partitions before the first record is there to wait for it."""
        try:
            self._producer.list_topics(self._topic, timeout=MEET_S)
        except KafkaException as error:
            log.warning("librdkafka finds no broker yet: %s", error.args[0].name())

    def _look_for_leaders(self) -> None:
        """Ask where the partitions are led while nothing comes of what is out; waits for no answer."""
        now = time.monotonic()
        if not len(self._producer):
            self._look_at = now + LOOK_S
        elif now >= self._look_at:
            self._look_at = now + LOOK_S
            with suppress(KafkaException):  # That there was no answer yet.
                self._producer.list_topics(self._topic, timeout=0)

    def _withdraw(self) -> None:
        self._producer.purge(blocking=False)
        give_up_at = time.monotonic() + WITHDRAW_S
        while len(self._producer) and time.monotonic() < give_up_at:
            self._producer.poll(POLL_S)
        self._hand_over()

    def _note(self, call: Call, index: int, error: KafkaError | None, message: Any) -> None:
        if error is None:
            self._burst.stored.append((call, index, message.partition(), message.offset()))
        else:
            self._burst.failed.append((call, index, self._failure(error, message)))

    def _failure(self, error: KafkaError, message: Any) -> Failure:
        if error.fatal():
            self._dead = error.name()
        if error.code() in _NOT_ALLOWED:
            self._denied()
            self._lonely = True
        certain = self._once or 0 <= message.latency() < _FIRST_ATTEMPT_S
        if error.code() in _ABOUT_ITS_CONTENT:
            return TurnedDown(error.name(), certain)
        if error.code() in _BEFORE_APPENDING and certain:
            return NotSent(error.name())
        return Lost(error.name())

    def _heard(self, error: KafkaError) -> None:
        if error.fatal():
            self._dead = error.name()
        self._lonely = self._lonely or error.code() == _ALL_BROKERS_DOWN

    def _hand_over(self) -> None:
        if self._burst:
            burst, self._burst = self._burst, Burst()
            self._look_at = time.monotonic() + LOOK_S
            self._tell(self._receive, burst)

    def _tell(self, what: Any, *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # The loop is closed: nobody waits any more.
            self._ending = True

    # In the loop.

    def _receive(self, burst: Burst) -> None:
        self.out -= len(burst)
        self._told(self, burst)
