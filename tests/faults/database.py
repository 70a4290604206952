"""The key database: known keys go on working without it, and an unknown one is never called a bad one for it."""

import time

from tests.faults.fault import Breaking, fault
from tests.faults.stage import Stage
from tests.integration.servers.service import done

TTL = {"KEYS_TTL_S": "1"}
"""Known keys are looked up again each second, so that the loss of the database is felt."""

LOOKUP_S = 1.5


@fault("F31", "PostgreSQL is killed", lasts_s=10, gap_s=1.5, short=True, settings=TTL)
def killed(stage: Stage) -> Breaking:
    _, stranger = stage.keys.new("umbrella")
    stage.keys.server.kill()
    unknown_keys_are_told_to_wait(stage, stranger)
    yield "no process of it is left; unknown keys are answered 503"
    stage.keys.server.start()
    stage.until(lambda: stage.post("cs_live_nobody")[0] == 401, within_s=5)
    assert stage.post(stranger, tenant_id="umbrella")[0] == 202


@fault("F32", "PostgreSQL freezes", lasts_s=10, gap_s=2.5, short=True, settings=TTL)
def frozen(stage: Stage) -> Breaking:
    _, stranger = stage.keys.new("umbrella")
    stage.keys.server.freeze()
    unknown_keys_are_told_to_wait(stage, stranger)
    yield "all of its processes stand still; unknown keys are answered 503"
    stage.keys.server.thaw()
    stage.until(lambda: stage.post("cs_live_nobody")[0] == 401, within_s=5)
    assert stage.post(stranger, tenant_id="umbrella")[0] == 202


@fault("F33", "PostgreSQL fails over to another address", gap_s=1.5, settings=TTL)
def failover(stage: Stage) -> Breaking:
    """Connections are reset, for five seconds nobody is there, then the same data is elsewhere."""
    _, stranger = stage.keys.new("umbrella")
    stage.keys.link.lead_to(("127.0.0.1", 1))
    unknown_keys_are_told_to_wait(stage, stranger)
    yield "its address leads nowhere; unknown keys are answered 503"
    stage.wait(5)
    stage.keys.link.lead_to(("127.0.0.1", stage.keys.port))
    stage.until(lambda: stage.post(stranger, tenant_id="umbrella")[0] == 202, within_s=3)


@fault("F34", "PostgreSQL is three seconds slow", lasts_s=6, gap_s=2.5, settings=TTL)
def slow(stage: Stage) -> Breaking:
    """Look-ups have a time-out below that, and a flood of unknown keys makes no queue."""
    stage.keys.link.harm(answer_delay_s=3.0)
    for n in range(6):
        status, code, seconds = stage.post(f"cs_live_nobody{n}")
        assert (status, code) == (503, "KEYS_UNAVAILABLE"), (status, code)
        assert seconds < LOOKUP_S + 0.5, seconds
    delayed = stage.keys.link.tally.delayed
    assert delayed
    yield f"{delayed} of its answers are delayed by 3 s"
    stage.keys.link.heal()
    stage.until(lambda: stage.post("cs_live_nobody")[0] == 401, within_s=5)


@fault("F35", "a key is revoked and one is made while PostgreSQL is out of reach", gap_s=1.5, settings=TTL)
def changed_out_of_reach(stage: Stage) -> Breaking:
    """The service can't know it. It knows two seconds after it can."""
    key_id, old = stage.keys.new("umbrella")
    assert stage.post(old, tenant_id="umbrella")[0] == 202
    stage.keys.link.harm(loses_requests=True, loses_answers=True)
    done(stage.keys.folder, "keys", "revoke", key_id, **stage.keys.settings)
    _, new = stage.keys.new("umbrella")
    stage.until(lambda: stage.keys.link.tally.lost_bytes)
    assert stage.post(old, tenant_id="umbrella")[0] == 202
    assert stage.post(new, tenant_id="umbrella")[:2] == (503, "KEYS_UNAVAILABLE")
    yield "the revoked key still works, the new one is answered 503"
    stage.keys.link.heal()
    healed_s = time.monotonic()
    stage.until(lambda: stage.post(old, tenant_id="umbrella")[:2] == (401, "API_KEY_REVOKED"), within_s=4)
    stage.until(lambda: stage.post(new, tenant_id="umbrella")[0] == 202, within_s=4)
    assert time.monotonic() - healed_s < 4


def unknown_keys_are_told_to_wait(stage: Stage, stranger: str) -> None:
    """Neither a bad key nor a good one that the service has not met is called bad; nobody waits long."""
    for secret in ("cs_live_nobody", stranger, "cs_live_nobody2", stranger):
        status, code, seconds = stage.post(secret, tenant_id="umbrella")
        assert (status, code) == (503, "KEYS_UNAVAILABLE"), (status, code)
        assert seconds < LOOKUP_S, seconds
