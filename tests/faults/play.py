"""Plays one fault from beginning to end, and judges what was seen."""

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.faults.cluster import LinkedCluster
from tests.faults.fault import Breaking, Fault
from tests.faults.oracles import (
    CALM_MS,
    Moments,
    Resources,
    about_answers,
    about_counters,
    about_health,
    about_logs,
    about_resources,
    about_times,
    gap_s,
)
from tests.faults.report import Row
from tests.faults.stage import BUSY, DRAIN_DELAY_S, PUBLISH_TIMEOUT_S, Keys, Stage, now_ms
from tests.faults.verdict import Verdict, verify
from tests.faults.watch import Watch

RECOVERY_PATIENCE_S = 30.0


def set_stage(
    name: str,
    *,
    cluster: LinkedCluster,
    keys: Keys,
    folder: Path,
    seed: int = 0,
    settings: Mapping[str, str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    topic: Mapping[str, Any] | None = None,
) -> Stage:
    """Make a topic of its own, unless `topic` says `missing`, and what the service needs to be started."""
    events = f"events-{name.lower()}-{uuid.uuid4().hex[:8]}"
    wanted = {"partitions": 3, **(topic or {})}
    if not wanted.pop("missing", False):
        cluster.create_topic(events, **wanted)
    production = {
        "KEYS_URL": keys.url_for_service,
        "PUBLISHER_URL": cluster.url_for_clients(events, **(parameters or {})),
        "PUBLISH_TIMEOUT_S": str(PUBLISH_TIMEOUT_S),
        "DRAIN_DELAY_S": str(DRAIN_DELAY_S),
    }
    return Stage(
        cluster=cluster,
        keys=keys,
        topic=events,
        partitions=wanted["partitions"],
        folder=folder,
        random=random.Random(f"{seed} {name}"),
        settings=keys.settings | production | dict(settings or {}),
        note=f"payload-{uuid.uuid4().hex}",
    )


class Play:
    """One fault from beginning to end."""

    def __init__(self, fault: Fault, stage: Stage, seed: int) -> None:
        self._fault, self._stage, self._seed = fault, stage, seed
        self._began = time.monotonic()
        self._complaints: list[str] = []
        self._fired: list[str] = []

    def run(self) -> Row:
        """Break, mend, let everybody recover, read everything back, and say what was seen."""
        fault, stage = self._fault, self._stage
        breaking = fault.how(stage)
        broken_ms = self._break(breaking) if fault.at_start else 0
        stage.start_service()
        stage.service.live() if fault.at_start else stage.service.ready()
        before = self._resources()
        with Watch(stage.service) as watch:
            stage.start_load(**fault.plan)
            if not fault.at_start:
                stage.until(lambda: len(stage.load.accepted()) > BUSY)
                broken_ms = self._break(breaking)
            stage.wait(fault.lasts_s)
            self._fired += [*breaking]
            moments = self._recovered(broken_ms, now_ms())
            for load in stage.loads:
                load.end()
        self._complaints += self._about_the_process(before)
        stage.cluster.heal()
        verdict = verify(stage.journals, stage.cluster, stage.topic)
        self._complaints += [
            *verdict.complaints,
            *about_answers(fault, stage.requests, moments),
            *about_times(fault, stage.load.requests, moments),
            *about_health(fault, watch.looks, stage.requests),
            *about_logs(fault, stage),
        ]
        return self._row(moments, verdict)

    def _break(self, breaking: Breaking) -> int:
        """Return when it began; the fault has made sure that it fired."""
        began_ms = now_ms()
        self._fired.append(next(breaking))
        return began_ms

    def _recovered(self, broken_ms: int, mended_ms: int) -> Moments:
        stage, recovered_ms = self._stage, mended_ms
        if not self._fault.ends:
            within_s = self._fault.recovery_s + RECOVERY_PATIENCE_S
            stage.until(lambda: stage.load.everybody_accepted_at(since_ms=mended_ms), within_s=within_s)
            recovered_ms = stage.load.everybody_accepted_at(since_ms=mended_ms)
            stage.wait(2 * CALM_MS / 1000)
        return Moments(broken_ms=broken_ms, mended_ms=mended_ms, recovered_ms=recovered_ms, ended_ms=now_ms())

    def _about_the_process(self, before: Resources) -> Iterator[str]:
        """Look at what it has counted and what it holds, and let it end in order."""
        fault, stage = self._fault, self._stage
        if not fault.ends and not fault.restarts:
            stage.until(lambda: not stage.metrics().total("cs_ingest_in_flight_events"), within_s=5)
            yield from about_counters(stage.metrics(), [*stage.requests, *stage.asides])
            yield from about_resources(before, self._resources())
        if not fault.ends:
            stage.service.process.terminate()
        if code := stage.service.process.wait(DRAIN_DELAY_S + PUBLISH_TIMEOUT_S + 5):
            yield f"exit code {code}"

    def _resources(self) -> Resources:
        process = self._stage.process()
        with process.oneshot():
            return Resources(fds=process.num_fds(), threads=process.num_threads(), rss_bytes=process.memory_info().rss)

    def _row(self, moments: Moments, verdict: Verdict) -> Row:
        fault, stage = self._fault, self._stage
        outcomes: Counter[int] = Counter()
        for request in [*stage.requests, *stage.asides]:
            outcomes += request.outcomes or Counter({0: request.events})
        unknown = outcomes[0] + outcomes[504] + outcomes[500]
        return Row(
            fault=fault.number,
            name=fault.name,
            seed=self._seed,
            fired="; ".join(self._fired),
            sent=outcomes.total(),
            accepted=outcomes[202],
            unknown=unknown,
            refused=outcomes.total() - outcomes[202] - unknown,
            lost=verdict.lost,
            twice=verdict.twice,
            gap_s=gap_s(stage.load.requests),
            gap_bound_s=fault.gap_s,
            recovery_s=None if fault.ends else (moments.recovered_ms - moments.mended_ms) / 1000,
            recovery_bound_s=None if fault.ends else fault.recovery_s,
            took_s=time.monotonic() - self._began,
            complaints=self._complaints,
        )
