"""A Kafka with TLS, SASL and access rules: one node with a door for each way to come in."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from tests.integration.servers.kafka import Cluster, Missing, _fetched_jars, _free_ports, new_folder, started

USER, PASSWORD = "ada", "open-%41-sesame"
SESSION_S = 2.0
"""How long a log-in lasts at the door `SHORT_SESSIONS`."""

_DOORS = {
    "SSL": "SSL",
    "MUTUAL_TLS": "SSL",
    "SASL_PLAINTEXT": "SASL_PLAINTEXT",
    "SASL_SSL": "SASL_SSL",
    "SHORT_SESSIONS": "SASL_SSL",
}
Rule = TypeVar("Rule", AclBinding, AclBindingFilter)

_JAAS = "org.apache.kafka.common.security"


class Authority:
    """An authority that signs certificates with the command `openssl`; all keys are without password."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name, self._folder = name, folder
        self.cafile = folder / f"{name}.pem"
        self._make(name, "-subj", f"/CN={name}")

    def certificate(self, name: str, *options: str) -> tuple[Path, Path]:
        """Return the files of a certificate for this name and of its key."""
        issuer = ["-CA", str(self.cafile), "-CAkey", str(self.cafile.with_suffix(".key"))]
        return self._make(f"{self._name}-{name}", "-subj", f"/CN={name}", *issuer, *options)

    def _make(self, file: str, *options: str) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{file}.pem", self._folder / f"{file}.key"
        kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
        command = ["openssl", "req", *kind, "-out", str(certificate), "-keyout", str(key), *options]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        return certificate, key


class SecuredKafka(Cluster):
    """One node. `bootstrap` is the door without a lock, for the test itself, which may do everything."""

    def __init__(self, jars: Path, folder: Path) -> None:
        super().__init__(1, jars, folder)
        self._doors = dict(zip(_DOORS, _free_ports(len(_DOORS)), strict=True))
        self.authority, self.stranger = Authority(folder, "authority"), Authority(folder, "stranger")
        self._keystore = folder / "broker.pem"
        # For the name, and not for the address 127.0.0.1.
        certificate, key = self.authority.certificate("localhost", "-addext", "subjectAltName=DNS:localhost")
        self._keystore.write_bytes(key.read_bytes() + certificate.read_bytes())

    def door(self, name: str) -> int:
        """Return the port of a door: SSL, MUTUAL_TLS, SASL_PLAINTEXT, SASL_SSL, SHORT_SESSIONS."""
        return self._doors[name]

    def allow(self, user: str, topic: str, *operations: AclOperation) -> None:
        """Let the user do this with the topic; from the first rule on nobody else may do anything with it."""
        self._wait(self._admin.create_acls([_rule(AclBinding, user, topic, each) for each in operations]))

    def take_back(self, user: str, topic: str, *operations: AclOperation) -> None:
        self._wait(self._admin.delete_acls([_rule(AclBindingFilter, user, topic, each) for each in operations]))

    def set_password(self, user: str, password: str) -> None:
        """Let the user log in by SCRAM-SHA-512."""
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._change(UserScramCredentialUpsertion(user, how, password.encode()))

    def forget_password(self, user: str) -> None:
        self._change(UserScramCredentialDeletion(user, ScramMechanism.SCRAM_SHA_512))

    def _change(self, change: UserScramCredentialUpsertion | UserScramCredentialDeletion) -> None:
        self._wait(self._admin.alter_user_scram_credentials([change]))

    @staticmethod
    def _wait(asked: "dict[Any, Future[Any]]") -> None:
        for future in asked.values():
            future.result(20)

    def _settings(self, node: int) -> dict[str, object]:
        settings = super()._settings(node)
        listeners = "".join(f",{name}://127.0.0.1:{port}" for name, port in self._doors.items())
        advertised = "".join(f",{name}://localhost:{port}" for name, port in self._doors.items())
        protocols = "".join(f",{name}:{protocol}" for name, protocol in _DOORS.items())
        users = f'{_JAAS}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        logins = {"plain": users} | dict.fromkeys(
            ["scram-sha-256", "scram-sha-512"], f"{_JAAS}.scram.ScramLoginModule required;"
        )
        return {
            **settings,
            "listeners": f"{settings['listeners']}{listeners}",
            "advertised.listeners": f"{settings['advertised.listeners']}{advertised}",
            "listener.security.protocol.map": f"{settings['listener.security.protocol.map']}{protocols}",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.authority.cafile,
            "listener.name.mutual_tls.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "listener.name.short_sessions.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.short_sessions.connections.max.reauth.ms": int(SESSION_S * 1000),
            **{
                f"listener.name.{name.lower()}.{mechanism}.sasl.jaas.config": login
                for name, protocol in _DOORS.items()
                if protocol.startswith("SASL")
                for mechanism, login in logins.items()
            },
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "true",
        }

    def _format_options(self) -> list[str]:
        mechanisms = ("SCRAM-SHA-256", "SCRAM-SHA-512")
        return [f"--add-scram={mechanism}=[name={USER},password={PASSWORD}]" for mechanism in mechanisms]


@contextmanager
def running() -> Iterator[SecuredKafka]:
    """Provide it, or raise `Missing`."""
    for program in ("java", "openssl"):
        if shutil.which(program) is None:
            raise Missing(f"no Kafka with TLS to test with: {program} is missing")
    with started(SecuredKafka(_fetched_jars(), new_folder())) as kafka:
        yield kafka


def _rule(kind: type[Rule], user: str, topic: str, operation: AclOperation) -> Rule:
    literally, anywhere = ResourcePatternType.LITERAL, "*"
    return kind(ResourceType.TOPIC, topic, literally, f"User:{user}", anywhere, operation, AclPermissionType.ALLOW)
