"""What keeps the container small: what the files say, and the service within those walls, without an engine."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from customersignal_ingest.testing.planted import PEPPER, USER_ID
from tests.integration.servers.postgres import Postgres
from tests.integration.servers.service import Service, done

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
OURS = {
    name: service
    for name, service in yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"].items()
    if service["image"] == "customersignal-ingest"
}
EVENT = b'{"event_type":"paid","timestamp":"2026-11-23T10:00:00Z","user_id":"%s","properties":{}}' % USER_ID.encode()

# A mount namespace of its own, in which nothing but one folder in memory can be written; no capability, and no way
# to get one. What `read_only`, `tmpfs`, `cap_drop` and `no-new-privileges` are in the compose files.
WALLS = """
mount -t tmpfs tmpfs "$TMPDIR" && mount -o remount,bind,ro / &&
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"
"""


def test_the_image_runs_as_a_user_who_owns_nothing() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]

    [user] = re.findall(r"^USER (\S+)$", final, re.M)
    assert user.isdigit()  # Kubernetes' runAsNonRoot can tell only of a number.
    assert int(user) > 0
    assert f"--uid {user} --no-create-home --shell /usr/sbin/nologin" in final
    assert "--chown" not in final
    assert final.index("COPY") < final.index("USER")


def test_the_image_installs_what_is_locked_with_hashes_and_nothing_else() -> None:
    installs = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if "pip install" in line]

    assert len(installs) == 2
    assert all("--require-hashes" in line or "--no-deps --no-build-isolation" in line for line in installs)


def test_the_image_holds_no_secret() -> None:
    assert not re.search(r"PEPPER|PASSWORD|SECRET|KEYS_URL|ARG ", DOCKERFILE)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".env", "data"} <= {*ignored}


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_a_container_can_write_nowhere_but_in_memory_and_gains_no_right(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp"]
    assert not service.keys() & {"privileged", "cap_add", "volumes", "network_mode", "pid", "user", "devices"}


def test_health_is_asked_by_our_own_command_without_a_shell() -> None:
    assert OURS["ingest"]["healthcheck"]["test"] == ["CMD", "cs-ingest", "probe"]
    assert 'CMD ["cs-ingest", "probe"]' in DOCKERFILE


def test_nothing_is_published_beyond_this_machine() -> None:
    files = [yaml.safe_load((ROOT / name).read_text()) for name in ("docker-compose.yml", "docker-compose.cluster.yml")]

    ports = [port for file in files for service in file["services"].values() for port in service.get("ports", [])]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_service_works_where_it_can_write_nothing_and_has_no_right(postgres: Postgres, tmp_path: Path) -> None:
    stores = {"PUBLISHER_URL": "memory:", "KEYS_URL": postgres.new_database(), "KEY_PEPPER": PEPPER}
    for command in (["migrate"], ["tenants", "create", "acme"]):
        done(tmp_path, *command, **stores)
    [key] = done(tmp_path, "keys", "create", "--tenant", "acme", **stores)
    (tmp_path / "memory").mkdir()
    walls = ["env", f"TMPDIR={tmp_path}/memory", *_own_namespace(), "sh", "-c", WALLS, "sh"]

    service = Service(tmp_path, {**stores, "DRAIN_DELAY_S": "0"}, before=walls).ready()
    try:
        answer = service.post(key["secret"], EVENT)
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        with pytest.raises(OSError, match="Read-only"):
            Path(f"/proc/{service.process.pid}/root{tmp_path}/new").touch()
        code = service.stop()
    finally:
        service.end()

    assert (answer.status_code, code) == (202, 0)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert re.search(r"^CapBnd:\s+0+$", status, re.M)
    assert re.search(r"^CapEff:\s+0+$", status, re.M)


def _own_namespace() -> list[str]:
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*command, "true"], capture_output=True).returncode != 0:
        pytest.skip("this kernel lets nobody here have a mount namespace")
    return command
