"""The service itself: told to end, killed, frozen, short of files, with nobody who reads its log."""

import os
import resource
import signal
import threading
import time
from collections import Counter
from contextlib import suppress

import httpx

from tests.faults.fault import Breaking, fault
from tests.faults.stage import DRAIN_DELAY_S, PUBLISH_TIMEOUT_S, Stage

D_S = PUBLISH_TIMEOUT_S


@fault("F36", "SIGTERM under load", answers={0}, gap_s=2.0, short=True, ends=True)
def sigterm(stage: Stage) -> Breaking:
    """Nobody is refused or failed while Kafka is well: the last clients find nobody listening."""
    asked_s = time.monotonic()
    stage.service.process.terminate()
    code = stage.service.process.wait(DRAIN_DELAY_S + D_S + 2)
    took_s = time.monotonic() - asked_s
    yield f"exit code {code} after {took_s:.1f} s"
    assert took_s >= DRAIN_DELAY_S


@fault("F37", "SIGTERM while Kafka stands still", answers={0, 503, 504}, short=True, ends=True)
def sigterm_without_kafka(stage: Stage) -> Breaking:
    stage.cluster.freeze()
    stage.wait(0.5)  # So that something is in flight that nobody will confirm.
    asked_s = time.monotonic()
    stage.service.process.terminate()
    code = stage.service.process.wait(DRAIN_DELAY_S + D_S + 2)
    took_s = time.monotonic() - asked_s
    stage.cluster.thaw()
    assert stage.load.answered(504)
    yield f"exit code {code} after {took_s:.1f} s; clients were answered 504"


@fault("F38", "SIGKILL under load, and a new start", answers={0}, recovery_s=5, short=True, restarts=True)
def sigkill(stage: Stage) -> Breaking:
    stage.service.kill()
    yield f"exit code {stage.service.process.returncode}"
    stage.service.start()
    stage.service.ready()


@fault("F39", "SIGINT, and SIGTERM twice", answers={0}, gap_s=2.0, ends=True)
def impatient(stage: Stage) -> Breaking:
    """A second signal may hurry the end; it must not make an answer false."""
    process = stage.service.process
    process.send_signal(signal.SIGINT)
    stage.wait(0.2)
    process.send_signal(signal.SIGTERM)
    stage.wait(0.2)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    code = process.wait(DRAIN_DELAY_S + D_S + 2)
    yield f"exit code {code}"


@fault("F43", "the service stands still for 6 s", answers={503, 504}, gap_s=6.0 + 4.0, short=True, ready=False)
def standstill(stage: Stage) -> Breaking:
    """As when its loop is blocked: what lies in the sockets is read before anything is called late."""
    freeze(stage, 6.0)
    yield "its process was stopped for 6 s"


@fault(
    "F44",
    "the service stands still for a minute",
    answers={0, 408, 503, 504},
    recovery_s=8,
    ready=False,
    plan={"patience_s": 90.0},
)
def long_standstill(stage: Stage) -> Breaking:
    """Brokers and database may have hung up meanwhile, and a body that lay in its socket is called late: 408."""
    freeze(stage, 60.0)
    yield "its process was stopped for 60 s"


@fault("F48", "no more files may be opened", answers={0, 503, 504}, gap_s=4.0, lasts_s=5)
def no_more_files(stage: Stage) -> Breaking:
    """Known connections go on; new ones wait or are turned away; it must not end."""
    pid = stage.service.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (stage.process().num_fds(), before[1]))
    crowd = stage.start_load(waiting=20, per_s=0, batches=0, retrying=0, wrong=0, patience_s=4.0)
    stage.until(lambda: len(crowd.requests) >= 20)
    stage.wait(5)
    happy = {request.client for request in crowd.accepted()}
    assert len(happy) < 20, "every new client was served, so files could be opened"
    assert stage.service.process.poll() is None
    yield f"{20 - len(happy)} of 20 new clients can't be served"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@fault("F50", "nobody reads the log", lasts_s=5, gap_s=1.5, at_start=True, plan={"waiting": 12})
def log_unread(stage: Stage) -> Breaking:
    """The pipe is full soon. Lines are dropped and counted, and no request waits for it."""
    pipe = stage.folder / "out.txt"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    yield "the log is a pipe"
    stage.until(lambda: stage.metrics().total("cs_ingest_log_lines_dropped_total"), within_s=120)
    stage.wait(5)
    yield f"{stage.metrics().total('cs_ingest_log_lines_dropped_total'):g} lines dropped"
    threading.Thread(target=drain, args=(reader,), daemon=True).start()


@fault("F51", "metrics are scraped without a pause", lasts_s=1, gap_s=1.5)
def scraped(stage: Stage) -> Breaking:
    over, scrapes = threading.Event(), []

    def scrape() -> None:
        while not over.is_set():
            scrapes.append(stage.service.get("/metrics").status_code)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    stage.wait(5)
    over.set()
    for thread in threads:
        thread.join()
    assert set(scrapes) == {200}
    yield f"{len(scrapes)} scrapes in 5 s"


def drain(reader: int) -> None:
    """Read all there is, until the last writer has ended."""
    os.set_blocking(reader, True)
    while os.read(reader, 65536):
        pass
    os.close(reader)


def freeze(stage: Stage, seconds: float) -> None:
    process = stage.process()
    process.suspend()
    stage.wait(0.2)
    assert process.status() == "stopped"
    stage.wait(seconds - 0.2)
    process.resume()


@fault("F49", "no more memory may be had", answers={0, 500, 503, 504}, recovery_s=8, restarts=True, ready=False)
def no_more_memory(stage: Stage) -> Breaking:
    """Large requests meet a limit of memory: some fail, all are answered truly or not at all; it may even end."""
    process, pid = stage.process(), stage.service.process.pid
    limit = process.memory_info().vms + 24 * 2**20
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (limit, before[1]))
    large = {"x": "y" * 800_000}
    answers: Counter[int] = Counter()

    def send() -> None:
        for _ in range(8):
            with suppress(httpx.TransportError):
                answers[stage.post(stage.keys.secret, properties=large)[0]] += 1
                continue
            answers[0] += 1

    threads = [threading.Thread(target=send) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers.keys() - {202}, "memory was enough for everybody"
    ended = stage.service.process.poll()
    yield f"large requests were answered {dict(sorted(answers.items()))}" + (
        "" if ended is None else f"; it ended with {ended}"
    )
    if ended is None:
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    else:
        stage.service.start()
    stage.service.ready()
