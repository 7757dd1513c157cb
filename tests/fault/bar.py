"""A gate on a secured Apache Kafka, killed brokers, killed clients: the ground that the client's bar stands on."""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployment import Deployment, Host
from fixtures_broker import ADMIN, SecuredKafka, node
from fixtures_stack import widened_tiny_model

from sluicegate.broker import RunningBroker
from sluicegate.client import ClientConfig
from sluicegate.kafka_node import NodeAccess
from sluicegate.keys import public_jwk
from sluicegate.proof import make_token
from sluicegate.streams.topology import DELIVERY, STAGES

SERVICE, SECOND = "helpdesk-app", "nightly-triage"
REPLIES = {SERVICE: "helpdesk", SECOND: "triage"}
PEOPLE = ("eva.eng", "ian.intern", "una.both")
ISSUER, AUDIENCE, KID = "https://id.heron.example", "sluicegate", "idp-1"
IDENTITY_PROVIDER = Ed25519PrivateKey.from_private_bytes(b"i" * 32)
TENANT = "bar"
USERS = (ADMIN, SERVICE, SECOND, *(f"main.{stage}" for stage in {*STAGES, DELIVERY, "publisher"}))
ON_THE_WAY = ("enforcer", "freshness", "runner", "redactor", "delivery")
WORKER = Path(__file__).resolve().parent.parent / "client_worker.py"
CLIENTS = 3
WATCH_S = 0.2
DOWN_S = (0.2, 1.5)
LIFETIME_S = 3600


def secret(folder: Path, kafka: SecuredKafka, user: str) -> dict[str, str]:
    path = folder / f"{user}.secret"
    path.touch(mode=0o600)
    path.write_text(kafka.password(user) + "\n")
    return {"sasl_username": user, "sasl_password_file": str(path)}


def token_of(person: str, service: str = SERVICE) -> str:
    claims = {"sub": person, "act": {"sub": service}}
    now_s = int(time.time())
    return make_token(
        IDENTITY_PROVIDER, kid=KID, issuer=ISSUER, audience=AUDIENCE, claims=claims, now_s=now_s, lifetime_s=LIFETIME_S
    )


@dataclass
class Bar:
    """Everything that runs. Stages and clients are started again when they end; clients until their work is done."""

    folder: Path
    chance: random.Random
    access: NodeAccess
    broker: RunningBroker
    deployment: Deployment
    trust: Path
    clients: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    stages: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    stages_ended: int = 0
    kills: int = 0
    restarts: int = 0

    @property
    def kafka(self) -> SecuredKafka:
        return SecuredKafka(bootstrap=self.broker.bootstrap, access=self.access)

    def key(self, service: str) -> Path:
        return self.deployment.hosts[service].keys / f"service-{service}.pem"

    def config(self, service: str) -> ClientConfig:
        return ClientConfig(
            bootstrap=self.broker.bootstrap, tenant=TENANT, service=service, reply=REPLIES[service],
            key=self.key(service), trust=self.trust, security=self.kafka.security(service), timeout_s=60.0,
            fetch_wait_ms=20,
        )  # fmt: skip

    def journal(self, client: int) -> Path:
        return self.folder / f"client-{client}.journal"

    def write_jobs(self, count: int) -> None:
        """Divides the numbers among the clients; every body stays as it is, deadline included."""
        shared = {
            "bootstrap": self.broker.bootstrap, "tenant": TENANT, "service": SERVICE, "reply": REPLIES[SERVICE],
            "key": str(self.key(SERVICE)), "trust": str(self.trust), "password": self.kafka.password(SERVICE),
            "tokens": {person: token_of(person) for person in PEOPLE},
            "deadline_ms": (int(time.time()) + LIFETIME_S) * 1000,
        }  # fmt: skip
        for client in range(CLIENTS):
            own = {"journal": str(self.journal(client)), "numbers": list(range(client, count, CLIENTS))}
            (self.folder / f"client-{client}.json").write_text(json.dumps(shared | own))

    def start_client(self, client: int) -> None:
        with (self.folder / f"client-{client}.log").open("ab") as log:
            self.clients[client] = subprocess.Popen(
                [sys.executable, str(WORKER), str(self.folder / f"client-{client}.json")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def done(self) -> list[list[str]]:
        """The words of every `done` line."""
        journals = [self.journal(client) for client in range(CLIENTS)]
        lines = [line.split() for path in journals if path.exists() for line in path.read_text().splitlines()]
        return [words[1:] for words in lines if words[0] == "done" and len(words) == 7]

    async def watch(self) -> None:
        """The service manager of the stages."""
        while True:
            for stage, process in self.stages.items():
                if process.poll() is not None:
                    self.stages_ended += 1
                    self.stages[stage] = self.deployment.hosts[stage].run(stage)
            await asyncio.sleep(WATCH_S)

    async def until_done(self, count: int, limit_s: float) -> None:
        async with asyncio.timeout(limit_s):
            while len(self.done()) < count:
                for client, process in self.clients.items():
                    code = process.poll()
                    assert code in (None, 0), (self.folder / f"client-{client}.log").read_text()[-3000:]
                await asyncio.sleep(WATCH_S)

    def kill_a_client(self) -> None:
        running = [client for client, process in self.clients.items() if process.poll() is None]
        if running:
            client = self.chance.choice(running)
            self.clients[client].kill()
            self.clients[client].wait()
            self.kills += 1
            self.start_client(client)

    async def restart_the_broker(self) -> None:
        self.broker.child.kill()
        await self.broker.child.wait()
        await asyncio.sleep(self.chance.uniform(*DOWN_S))
        port = int(self.broker.bootstrap.rpartition(":")[2])
        self.broker = await node(self.folder / "kafka", port=port, access=self.access)
        self.restarts += 1


def _deploy(folder: Path, kafka: SecuredKafka) -> Deployment:
    made = Deployment(
        folder, bootstrap=kafka.bootstrap, broker="kafka", security_protocol="SASL_PLAINTEXT", tenant=TENANT,
        replication="1", fetch_wait_ms="20", request_timeout_s="5", session_timeout_s="6", model_threads="1",
        model_source=str(widened_tiny_model(folder)),
    )  # fmt: skip
    publisher = secret(folder, kafka, "main.publisher")
    made.publisher.settings |= {f"SLUICEGATE_{name.upper()}": value for name, value in publisher.items()}
    made.make_keys()
    for stage in ON_THE_WAY:
        made.host(stage, stage, **secret(folder, kafka, f"main.{stage}"))
    for service in REPLIES:
        made.hosts[service] = Host(folder / service)
        made.service(service, made.hosts[service])
    identity_provider = {
        "issuer": ISSUER, "audience": AUDIENCE, "principal_claim": "sub", "binding": "act.sub",
        "jwks": {"keys": [public_jwk(IDENTITY_PROVIDER, KID)]},
    }  # fmt: skip
    replies = [{"service": service, "topic": topic} for service, topic in REPLIES.items()]
    made.change_directory(replies=replies, issuers=[identity_provider])
    admin = made.hosts["admin"] = Host(
        folder / "admin", **made.settings, directory_path=str(made.directory), **secret(folder, kafka, ADMIN)
    )
    users = [word for role in (*STAGES, "publisher") for word in ("--user", f"{role}=main.{role}")]
    assert admin.type("topics", "apply", *users) == 0
    assert made.publisher.type("publish") == 0
    return made


@asynccontextmanager
async def standing(folder: Path, seed: int) -> AsyncIterator[Bar]:
    """A node of its own, topics and rights by `topics apply`, a policy, and the stages that a request passes."""
    access = NodeAccess(users={name: f"{name}.password" for name in USERS}, super_user=ADMIN)
    broker = await node(folder / "kafka", access=access)
    bar: Bar | None = None
    watching: asyncio.Task[None] | None = None
    try:
        kafka = SecuredKafka(bootstrap=broker.bootstrap, access=access)
        # Commands run loops of their own.
        deployment = await asyncio.to_thread(_deploy, folder, kafka)
        trust = folder / "redactor-keys.json"
        bar = Bar(folder, random.Random(seed), access, broker, deployment, trust)
        bar.stages = {stage: deployment.hosts[stage].run(stage) for stage in ON_THE_WAY}
        watching = asyncio.create_task(bar.watch())
        yield bar
    finally:
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        if bar is not None:
            for process in bar.clients.values():
                process.kill()
                process.wait()
            await asyncio.to_thread(bar.deployment.end)
            broker = bar.broker
        broker.child.kill()
        await broker.child.wait()
