"""TLS to a real Apache Kafka: a broker whose certificate our authority signed is taken, no other, and why is told."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from certificates import Authority
from fixtures_broker import need_kafka, node, running
from streams_worker import SHELLS, serve

from sluicegate.broker import require_broker
from sluicegate.broker_access import broker_config
from sluicegate.kafka_node import NodeAccess, Tls
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.schemas.records import Unsent
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.topic_admin import TopicAdmin
from sluicegate.streams.topology import Topology

USER, PASSWORD = "admin", "admin.password"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """A node that speaks TLS alone, and settings that reach it."""

    settings: Settings
    folder: Path

    def changed(self, **changes: object) -> Settings:
        return self.settings.model_copy(update={"request_timeout_s": 3.0, **changes})


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reached]:
    need_kafka()
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.make(folder / "ca", "Heron CA")
    certificate, key = authority.issue("broker")
    access = NodeAccess(
        users={USER: PASSWORD},
        super_user=USER,
        tls=Tls(certificate=certificate, key=key, authority=authority.certificate_file),
    )
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    with running(lambda: node(folder, access=access)) as broker:
        settings = Settings(
            bootstrap=broker.bootstrap,
            security_protocol="SASL_SSL",
            sasl_username=USER,
            sasl_password_file=password,
            ssl_ca_file=authority.certificate_file,
            replication=1,
        )
        yield Reached(settings=settings, folder=folder)


@pytest.mark.parametrize("shell", sorted(SHELLS))
async def test_every_client_speaks_tls(shell: str, reached: Reached, topology: Topology) -> None:
    config = broker_config(reached.settings, "test")
    await require_broker(config)
    stopping, ready = asyncio.Event(), asyncio.Event()
    async with Broker(config) as broker:
        await broker.create_topics(topology.topics)
        await broker.append(topology.requests, 0, [Unsent(key=b"k", value=b"1")])
        serving = asyncio.create_task(serve(shell, replace(config, fetch_wait_ms=20), topology, stopping, ready.set))
        async with asyncio.timeout(30):
            while await broker.end_offset(topology.decisions, 0) < 1:
                assert not serving.done(), serving.exception()
                await asyncio.sleep(0.1)
        stopping.set()
        await asyncio.wait_for(serving, 20)


async def test_a_broker_that_is_not_ours_is_refused_and_why_is_told(
    reached: Reached, caplog: pytest.LogCaptureFixture
) -> None:
    other = Authority.make(reached.folder / "other", "Other CA")
    own, own_key = other.issue("client", client=True)
    wrong = reached.folder / "wrong.password"
    wrong.touch(mode=0o600)
    wrong.write_text("never.the.password")
    by_name = reached.settings.bootstrap.replace("127.0.0.1", "localhost")
    cases = [
        (reached.changed(ssl_ca_file=other.certificate_file), ConfigurationError, "is not to be trusted .*CA_FILE"),
        (reached.changed(ssl_ca_file=None), ConfigurationError, "is not to be trusted"),
        (reached.changed(bootstrap=by_name), ConfigurationError, "is not to be trusted .*localhost"),
        (reached.changed(sasl_password_file=wrong), ConfigurationError, "does not know user `admin`"),
        (reached.changed(sasl_mechanism="PLAIN"), ConfigurationError, "does not offer PLAIN"),
        (
            reached.changed(security_protocol="SASL_PLAINTEXT", ssl_ca_file=None),
            Unavailable,
            "closes the connection.*SASL_PLAINTEXT|did not answer",
        ),
        (
            reached.changed(security_protocol="SSL", sasl_username="", sasl_password_file=None),
            Unavailable,
            "closes the connection.*does not speak SSL there",
        ),
    ]
    with caplog.at_level(logging.DEBUG):
        for settings, kind, text in cases:
            config = broker_config(settings, "test")
            for connect in (Broker(config), TopicAdmin(config)):
                with pytest.raises(kind, match=text):
                    async with connect:
                        raise AssertionError("it was taken")
            with pytest.raises((ConfigurationError, Unavailable)):
                await require_broker(config)
    # The same with the right authority, and with a certificate of ours that nobody asks for.
    fine = reached.changed(ssl_cert_file=own, ssl_key_file=own_key)
    await require_broker(broker_config(fine, "test"))
    assert "never.the.password" not in caplog.text
