"""Two of each stage, each a process on a host of its own with its own key alone, from settings, on a real Kafka."""

import asyncio
import json
import secrets
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deployment import Deployment, Host
from fixtures_broker import TENANTS
from fixtures_stack import widened_tiny_model

from sluicegate.client import Client, ClientConfig, Parameters, ReleaseOutcome
from sluicegate.keys import public_jwk
from sluicegate.proof import make_token
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.topology import Topology

SERVICE, PERSON = "helpdesk-app", "eva.eng"
STAGES = ("enforcer", "runner", "redactor", "delivery")
READY_LIMIT_S = 90.0
ISSUER = "https://idp.example"
IDENTITY_PROVIDER = Ed25519PrivateKey.from_private_bytes(b"\x51" * 32)


@pytest.fixture(scope="module")
def deployment(apache_kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("d")
    model = widened_tiny_model(folder)
    made = Deployment(
        folder, bootstrap=apache_kafka, tenant=f"t{next(TENANTS)}", partitions="2", fetch_wait_ms="50",
        session_timeout_s="6", sink_batch_wait_ms="50", replication="1", stop_timeout_s="10",
    )  # fmt: skip
    made.make_keys()
    for stage in STAGES:
        for number in (1, 2):
            options = {"model_source": str(model)} if stage == "runner" else {}
            made.host(f"{stage}-{number}", stage, instance_id=f"{stage}-{number}", **options)
    made.host("sink-1", "sink")
    made.host("freshness-1", "freshness")
    application = made.hosts["application"] = Host(folder / "application")
    made.service(SERVICE, application)
    made.change_directory(
        replies=[{"service": SERVICE, "topic": "desk"}],
        issuers=[
            {
                "issuer": ISSUER, "audience": "sluicegate", "principal_claim": "sub", "binding": "act.sub",
                "jwks": {"keys": [public_jwk(IDENTITY_PROVIDER, "idp-1")]},
            }
        ],
    )  # fmt: skip
    asyncio.run(make_topics(made))
    try:
        assert made.publisher.type("publish") == 0
        assert made.publisher.type("keys", "list", "--public") == 0
        yield made
    finally:
        made.end()


async def make_topics(made: Deployment) -> None:
    settings = made.publisher.loaded()
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    configs = topology.configs(batch_bytes_max=settings.slice_bytes_max, replies=["desk"])
    async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test")) as broker:
        await broker.create_topics(topology.with_replies(["desk"]), configs)


def until_well(hosts: list[tuple[Host, str]]) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    for host, stage in hosts:
        while host.type("health", stage) != 0:
            (process,) = host.processes[-1:]
            assert process.poll() is None, f"{host.folder.name} ended: {host.log(stage).read_text()[-1500:]}"
            assert time.monotonic() < deadline, (
                f"{host.folder.name} is not ready: {host.log(stage).read_text()[-1500:]}"
            )
            time.sleep(0.1)


def stage_of(name: str) -> str:
    return name.rpartition("-")[0]


def trusted_keys(made: Deployment, capsys: pytest.CaptureFixture[str]) -> Path:
    """What the publisher gives its clients: the public stage keys, as the command prints them."""
    capsys.readouterr()
    assert made.publisher.type("keys", "list", "--public") == 0
    path = made.folder / "trust.json"
    path.write_text(capsys.readouterr().out.strip())
    return path


def token() -> str:
    return make_token(
        IDENTITY_PROVIDER, kid="idp-1", issuer=ISSUER, audience="sluicegate",
        claims={"sub": PERSON, "act": {"sub": SERVICE}}, now_s=int(time.time()),
    )  # fmt: skip


async def ask(made: Deployment, trust: Path, count: int) -> list[tuple[ReleaseOutcome, bool]]:
    settings = made.publisher.loaded()
    config = ClientConfig(
        bootstrap=settings.bootstrap, service=SERVICE, key=made.hosts["application"].keys / f"service-{SERVICE}.pem",
        trust=trust, reply="desk", tenant=settings.tenant, timeout_s=60.0,
    )  # fmt: skip
    async with Client(config) as client:
        answers = await asyncio.gather(
            *(
                client.ask(
                    model="smollm2", purpose="writing", text="Say hello.", parameters=Parameters(max_tokens=4),
                    person_token=token(), request_id=f"{secrets.token_hex(6)}-{number}",
                )
                for number in range(count)
            )
        )  # fmt: skip
    return [(answer.outcome, bool(answer.text)) for answer in answers]


@pytest.mark.timeout(300)
def test_two_of_each_stage_answer_with_provided_keys_and_one_of_each_may_die(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = [(host, stage_of(name)) for name, host in deployment.hosts.items() if name != "application"]
    before = {host.folder.name: sorted(path.name for path in host.keys.iterdir()) for host, _ in hosts}
    assert before["enforcer-1"] == ["root.json", "stage-enforcer.pem", "stage-enforcer.pub"]
    assert before["sink-1"] == before["delivery-1"] == ["root.json"]
    for host, stage in hosts:
        host.run(stage)
    until_well(hosts)
    trust = trusted_keys(deployment, capsys)

    released = (ReleaseOutcome.RELEASED, True)
    assert asyncio.run(ask(deployment, trust, 4)) == [released] * 4

    for stage in STAGES:
        deployment.hosts[f"{stage}-1"].processes[0].send_signal(signal.SIGKILL)
    assert asyncio.run(ask(deployment, trust, 4)) == [released] * 4
    for stage in STAGES:
        assert deployment.hosts[f"{stage}-2"].processes[0].poll() is None

    after = {host.folder.name: sorted(path.name for path in host.keys.iterdir()) for host, _ in hosts}
    assert after == before, "no stage made a key"
    assert not list(deployment.folder.glob("*/home/keys/*")), "nor anywhere else"
    rows = landed(deployment, capsys)
    assert rows == {"requests": 8, "decisions": 8, "generations": 8, "releases": 8}


def landed(made: Deployment, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Effective records in the audit, asked for where the sink is."""
    sink, deadline = made.hosts["sink-1"], time.monotonic() + 30
    tables = ("requests", "decisions", "generations", "releases")
    query = " UNION ALL ".join(f"SELECT '{each}' AS name, countIf(effective) AS n FROM {each}" for each in tables)
    while True:
        capsys.readouterr()
        assert sink.type("audit", "sql", query, "--json") == 0
        rows = {row["name"]: row["n"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
        if all(count >= 8 for count in rows.values()) or time.monotonic() > deadline:
            return rows
        time.sleep(0.2)


def test_a_stage_without_its_key_or_the_root_does_not_start_and_says_what_to_type(
    deployment: Deployment, tmp_path: Path
) -> None:
    empty = Host(tmp_path / "empty", **deployment.settings)
    empty.keys.mkdir(mode=0o700)
    process = empty.run("redactor")
    assert process.wait(30) == 2
    assert "sluicegate keys new root" in empty.log("redactor").read_text()
    deployment.offline.carry("root.json", to=[empty])
    assert empty.run("redactor").wait(30) == 2
    assert "sluicegate keys new stage redactor" in empty.log("redactor").read_text()
    assert empty.type("keys", "new", "stage", "redactor") == 0
    assert empty.run("redactor").wait(30) == 2
    assert "is not admitted: run `sluicegate publish`" in empty.log("redactor").read_text()
