"""What `topics apply` grants on a real Apache Kafka that allows nothing by default, tried by every user with
credentials of its own.
"""

import asyncio
import time

import pytest
from broker_user import GROUP_REFUSED, OK, TOPIC_REFUSED, TRANSACTION_REFUSED
from counting import check_one_to_one
from fixtures_broker import ADMIN, STRANGER
from secured_tenant import (
    HELPDESK,
    PUBLISHER,
    REPLIES,
    ROGUE,
    STAGES,
    TRIAGE,
    SecuredTenant,
)
from streams_worker import SHELLS, serve, verifier

from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.records import Unsent
from sluicegate.streams.kafka import Broker
from sluicegate.streams.rights import Operation, Resource, Right
from sluicegate.streams.topic_admin import TopicAdmin
from sluicegate.streams.topic_plan import CreateTopic, Grant, TopicSpec
from sluicegate.streams.topology import ENFORCER, FRESHNESS, SINK
from sluicegate.topics import topics_wanted

READS = {
    "enforcer": {"requests", "policy", "freshness", "decisions"},
    "freshness": {"policy"},
    "runner": {"policy", "decisions", "generations"},
    "redactor": {"policy", "decisions", "generations", "releases"},
    "delivery": {"policy", "releases", "refusals", "replies.helpdesk", "replies.triage"},
    "shadow": {"requests", "policy", "decisions", "shadow"},
    "sink": {"requests", "policy", "decisions", "generations", "releases", "shadow"},
    "publisher": {"policy", "shadow"},
    HELPDESK: {"refusals", "replies.helpdesk"},
    TRIAGE: {"refusals", "replies.triage"},
    ROGUE: set(),
    STRANGER: set(),
}
WRITES = {
    "enforcer": {"decisions"},
    "freshness": {"freshness"},
    "runner": {"generations"},
    "redactor": {"releases"},
    "delivery": {"refusals", "replies.helpdesk", "replies.triage"},
    "shadow": {"shadow"},
    "sink": set(),
    "publisher": {"policy"},
    HELPDESK: {"requests"},
    TRIAGE: {"requests"},
    ROGUE: set(),
    STRANGER: set(),
}
NAMES = (
    "requests", "policy", "freshness", "decisions", "generations", "releases", "shadow", "refusals",
    "replies.helpdesk", "replies.triage",
)  # fmt: skip
REPLY_TOPICS = {f"replies.{topic}" for topic in REPLIES.values()}


async def test_every_user_can_do_what_the_table_says_and_nothing_else(deployed: SecuredTenant) -> None:
    wrote: dict[str, set[str]] = {}
    read: dict[str, set[str]] = {}
    for name in READS:
        async with deployed.user(name) as user:
            codes = {each: await user.write(deployed.topic(each), name.encode()) for each in NAMES}
            assert set(codes.values()) <= {OK, TOPIC_REFUSED}
            wrote[name] = {each for each, code in codes.items() if code == OK}
            found = {each: await user.read(deployed.topic(each)) for each in NAMES}
            assert {code for code, _ in found.values()} <= {OK, TOPIC_REFUSED}
            assert not any(values for code, values in found.values() if code != OK)
            read[name] = {each for each, (code, _) in found.items() if code == OK}
            # Whoever may read or write sees the topic, and nobody else does.
            seen = {each for each in NAMES if deployed.topic(each) in await user.visible()}
            assert seen == wrote[name] | read[name] | (REPLY_TOPICS if name == PUBLISHER else set())
            offsets = {each: await user.list_offsets(deployed.topic(each)) for each in NAMES}
            assert {each for each, code in offsets.items() if code == OK} == seen
    assert wrote == WRITES
    assert read == READS
    # One user a topic can write it; requests are every application's.
    for topic in NAMES:
        writers = [name for name, topics in wrote.items() if topic in topics]
        assert len(writers) == (2 if topic == "requests" else 1), (topic, writers)


async def test_an_application_reads_its_own_answers_alone(deployed: SecuredTenant) -> None:
    async with deployed.user("delivery") as delivery:
        for number in range(20):
            assert await delivery.write(deployed.topic("replies.helpdesk"), b"answer %d" % number) == OK
    async with deployed.user(HELPDESK) as owner, deployed.user(TRIAGE) as other, deployed.user(ROGUE) as rogue:
        _, own = await owner.read(deployed.topic("replies.helpdesk"))
        assert len(own) == 20
        for each in (other, rogue):
            code, found = await each.read(deployed.topic("replies.helpdesk"))
            assert (code, found) == (TOPIC_REFUSED, [])


async def test_nobody_has_a_transactional_id_and_only_a_stage_joins_its_group(deployed: SecuredTenant) -> None:
    for name in READS:
        async with deployed.user(name) as user:
            for own in (f"{name}-tx", deployed.topic(name), deployed.topology.group(name)):
                assert await user.init_transactions(own) == TRANSACTION_REFUSED
            joined = {each for each in STAGES if await user.join(deployed.topology.group(each)) != GROUP_REFUSED}
            assert joined == ({name} & set(STAGES)) - {SINK, FRESHNESS}
    async with deployed.user(ADMIN) as admin:
        assert await admin.init_transactions("admin-tx") == OK


async def test_a_user_without_rights_is_told_so(deployed: SecuredTenant) -> None:
    async with TopicAdmin(deployed.kafka.config("main.sink")) as admin:
        wanted = topics_wanted(deployed.settings, REPLIES)
        with pytest.raises(ConfigurationError, match="forbids to describe"):
            await admin.look(wanted, rights=True)
        with pytest.raises(ConfigurationError, match="forbids to grant rights"):
            await admin.do(
                Grant(
                    right=Right(
                        principal=f"User:{STRANGER}",
                        resource=Resource.TOPIC,
                        name=deployed.topic("requests"),
                        operation=Operation.READ,
                    )
                )
            )
        spec = TopicSpec(name=deployed.topic("mine"), partitions=1, replication=1, configs={})
        with pytest.raises(ConfigurationError, match="forbids to create topic"):
            await admin.do(CreateTopic(spec=spec))


@pytest.mark.parametrize("shell", sorted(SHELLS))
async def test_a_worker_decides_with_the_rights_of_its_stage(shell: str, deployed: SecuredTenant) -> None:
    topology, count = deployed.topology, 40
    stopping, ready = asyncio.Event(), asyncio.Event()
    config = deployed.kafka.config(f"main.{ENFORCER}")
    serving = asyncio.create_task(serve(shell, config, topology, stopping, ready.set))
    try:
        async with Broker(deployed.kafka.config(HELPDESK)) as producer:
            for number in range(count):
                unsent = [Unsent(key=b"k", value=b"%d" % number)]
                await producer.append(topology.requests, number % topology.partitions, unsent)
        async with Broker(deployed.kafka.config(f"main.{SINK}")) as sink:
            deadline = time.monotonic() + 30
            while sum([await sink.end_offset(topology.decisions, each) for each in range(2)]) < count:
                assert time.monotonic() < deadline
                assert not serving.done(), serving.exception()
                await asyncio.sleep(0.1)
            reports = [
                await check_one_to_one(sink, verifier(topology, each), source_topic=topology.requests)
                for each in range(topology.partitions)
            ]
        assert sum(report.answered for report in reports) == count
    finally:
        stopping.set()
        await asyncio.wait_for(serving, 20)


@pytest.mark.parametrize("shell", sorted(SHELLS))
async def test_a_worker_with_another_stages_user_is_told_so(shell: str, deployed: SecuredTenant) -> None:
    config = deployed.kafka.config("main.runner")
    with pytest.raises(ConfigurationError, match=r"create the topics first|forbids"):
        await asyncio.wait_for(serve(shell, config, deployed.topology, asyncio.Event(), lambda: None), 30)
