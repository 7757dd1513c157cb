"""What `topics plan`, `apply` and `check` find and mend on a real Apache Kafka with ACLs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from broker_user import OK, TOPIC_REFUSED
from fixtures_broker import ADMIN, STRANGER, TENANTS
from secured_tenant import (
    HELPDESK,
    REPLIES,
    ROGUE,
    TRIAGE,
    SecuredTenant,
    quiet_again,
    told_once,
    type_topics,
    write_directory,
)

from sluicegate.broker_access import broker_config
from sluicegate.cli import main
from sluicegate.schemas.errors import ConfigurationError, Unavailable
from sluicegate.settings import Settings
from sluicegate.streams.rights import Operation, Pattern, Permission, Resource, Right
from sluicegate.streams.topic_admin import TopicAdmin
from sluicegate.streams.topic_plan import CreateTopic, Grant, Revoke, SetConfigs, TopicSpec
from sluicegate.topics import Applications, Examined, apply, ensure, examine, realm_of, topics_wanted


async def test_a_plan_after_apply_is_empty_and_apply_does_nothing_twice(untouched: SecuredTenant) -> None:
    planned = await untouched.check()
    assert [each.mend.value for each in planned] == ["+"] * len(planned)
    done = await untouched.apply()
    assert done == list(planned)
    assert await untouched.check() == ()
    assert await untouched.apply() == []
    async with untouched.admin() as admin:
        topics = await admin.look(topics_wanted(untouched.settings, REPLIES), rights=False)
    found = {name: topic for name, topic in topics.topics.items() if name.startswith(f"{untouched.settings.tenant}.")}
    names = {"requests", "policy", "freshness", "decisions", "generations", "releases", "shadow", "refusals"}
    assert {name.partition(".")[2] for name in found} == names | {f"replies.{topic}" for topic in REPLIES.values()}
    assert found[untouched.topic("requests")].configs["message.timestamp.type"] == "LogAppendTime"
    assert found[untouched.topic("decisions")].configs["message.timestamp.type"] == "CreateTime"
    assert found[untouched.topic("policy")].partitions == 1
    assert found[untouched.topic("policy")].configs["retention.ms"] == "-1"


def _right(principal: str, name: str, operation: Operation, **changes: object) -> Right:
    fields: dict[str, object] = {"resource": Resource.TOPIC, **changes}
    return Right(principal=f"User:{principal}", name=name, operation=operation, **fields)  # type: ignore[arg-type]


PLANTED: dict[str, Callable[[SecuredTenant], Right]] = {
    "a second writer": lambda d: _right(STRANGER, d.topic("decisions"), Operation.WRITE),
    "a stage that writes another's": lambda d: _right("main.runner", d.topic("decisions"), Operation.WRITE),
    "everything": lambda d: _right(HELPDESK, d.topic("requests"), Operation.ALL),
    "somebody else's answers": lambda d: _right(TRIAGE, d.topic("replies.helpdesk"), Operation.READ),
    "a stranger who looks": lambda d: _right(STRANGER, d.topic("generations"), Operation.DESCRIBE),
    "everybody": lambda d: _right("*", d.topic("refusals"), Operation.READ),
    "our prefix": lambda d: _right(STRANGER, d.topic(""), Operation.READ, pattern=Pattern.PREFIXED),
    "an open prefix": lambda d: _right(STRANGER, d.settings.tenant, Operation.READ, pattern=Pattern.PREFIXED),
    "a wildcard": lambda d: _right(STRANGER, "*", Operation.WRITE),
    "a stage's group": lambda d: _right(STRANGER, d.topology.group("runner"), Operation.READ, resource=Resource.GROUP),
    "any group": lambda d: _right(STRANGER, "*", Operation.READ, resource=Resource.GROUP),
    "a transactional id": lambda d: _right(HELPDESK, "mine", Operation.WRITE, resource=Resource.TRANSACTIONAL_ID),
    "any transactional id": lambda d: _right(STRANGER, "*", Operation.WRITE, resource=Resource.TRANSACTIONAL_ID),
    "the cluster": lambda d: _right("main.sink", "kafka-cluster", Operation.ALTER, resource=Resource.CLUSTER),
    "a denial": lambda d: _right("main.enforcer", d.topic("requests"), Operation.READ, permission=Permission.DENY),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_check_tells_a_right_that_is_too_much(planted: str, deployed: SecuredTenant) -> None:
    right = PLANTED[planted](deployed)
    ours = right.name.startswith((f"{deployed.settings.tenant}.", deployed.topology.group("")))
    async with deployed.admin() as admin:
        await admin.do(Grant(right=right))
        try:
            (told,) = await told_once(deployed)
            assert str(right) in told.what
            assert told.action is None
            assert ("--revoke" in told.how) is ours
            if ours:
                (removed,) = await deployed.apply(revoke=True)
                assert removed.action == Revoke(right=right)
            else:
                # A name that is not the tenant's alone is not taken from whom it was meant for.
                (left,) = await deployed.check(revoke=True)
                assert left.action is None
        finally:
            await admin.do(Revoke(right=right))
        await quiet_again(deployed)


async def test_check_leaves_alone_what_is_none_of_its_business(deployed: SecuredTenant) -> None:
    harmless = [
        _right(HELPDESK, "tickets", Operation.ALL),
        _right(HELPDESK, "helpdesk", Operation.READ, resource=Resource.GROUP),
        _right(STRANGER, "stranger-tx", Operation.WRITE, resource=Resource.TRANSACTIONAL_ID),
        _right(STRANGER, f"{deployed.settings.tenant}0.", Operation.READ, pattern=Pattern.PREFIXED),
        _right(HELPDESK, "kafka-cluster", Operation.DESCRIBE, resource=Resource.CLUSTER),
    ]
    planted = _right(STRANGER, deployed.topic("releases"), Operation.READ)
    async with deployed.admin() as admin:
        try:
            for right in (*harmless, planted):
                await admin.do(Grant(right=right))
            (told,) = await told_once(deployed)
            assert str(planted) in told.what
        finally:
            for right in (*harmless, planted):
                await admin.do(Revoke(right=right))
        await quiet_again(deployed)


async def test_check_tells_what_is_wrong_with_a_topic(deployed: SecuredTenant) -> None:
    requests, decisions = deployed.topic("requests"), deployed.topic("decisions")
    async with deployed.admin() as admin:
        await admin.do(SetConfigs(topic=requests, configs={"message.timestamp.type": "CreateTime"}))
        (told,) = await told_once(deployed)
        assert "message.timestamp.type CreateTime -> LogAppendTime" in told.what
        await admin.do(SetConfigs(topic=decisions, configs={"retention.ms": "1000", "segment.ms": "60000"}))
        _, told = await told_once(deployed, 2)
        assert "retention.ms 1000 -> 604800000" in told.what
        assert len(await deployed.apply()) == 2
        # What the table does not speak of stays as its owner set it.
        spec = TopicSpec(name=decisions, partitions=2, replication=1, configs={"segment.ms": "60000"})
        assert (await admin.look((spec,), rights=False)).topics[decisions].configs == {"segment.ms": "60000"}
    await quiet_again(deployed)


async def test_check_tells_a_missing_topic_and_a_missing_right(deployed: SecuredTenant) -> None:
    write_directory(deployed.directory, {**REPLIES, ROGUE: "third"})
    told = await deployed.check()
    assert f"topic `{deployed.topic('replies.third')}`" in told[0].what
    assert isinstance(told[0].action, CreateTopic)
    assert {each.action.right.name for each in told[1:] if isinstance(each.action, Grant)} == {
        deployed.topic(each) for each in ("replies.third", "refusals", "requests")
    }
    async with deployed.user(ROGUE) as user:
        assert await user.write(deployed.topic("requests")) == TOPIC_REFUSED
        assert len(await deployed.apply()) == len(told)
        assert await user.write(deployed.topic("requests")) == OK
    taken = _right("main.sink", deployed.topic("releases"), Operation.READ)
    async with deployed.admin() as admin:
        await admin.do(Revoke(right=taken))
        (missing,) = await told_once(deployed)
        assert missing.action == Grant(right=taken)
        assert len(await deployed.apply()) == 1
    await quiet_again(deployed)


async def test_more_partitions_are_told_and_not_mended(deployed: SecuredTenant) -> None:
    async with deployed.admin() as admin:
        generations = deployed.topic("generations")
        await admin.create((TopicSpec(name=deployed.topic("other"), partitions=1, replication=1, configs={}),))
        await add_partitions(deployed, generations, 3)
        (told,) = await told_once(deployed)
    assert told.what == f"topic `{generations}` has 3 partitions, not 2"
    assert (told.action, "SLUICEGATE_PARTITIONS" in told.how) == (None, True)
    realm = realm_of(deployed.settings, deployed.applications, deployed.users)
    found = await examine(deployed.settings, deployed.applications, realm=realm)
    assert found.strangers == (deployed.topic("other"),)


async def add_partitions(deployed: SecuredTenant, topic: str, count: int) -> None:
    client = AIOKafkaAdminClient(**deployed.kafka.config(ADMIN).connection())
    try:
        await client.start()
        await client.create_partitions({topic: NewPartitions(count)})
    finally:
        await client.close()


def test_the_command_plans_applies_and_checks(
    untouched: SecuredTenant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def type_(*words: str) -> tuple[int, str, str]:
        return type_topics(untouched, monkeypatch, capsys, *words)

    code, out, _ = type_("plan")
    assert code == 2
    lines = out.splitlines()
    assert lines[0].startswith(f"  + topic `{untouched.topic('requests')}`: 2 partitions, 1 replicas")
    assert lines[-1] == f"  to do: {len(lines) - 1} to create, 0 to change, 0 to remove; by hand: 0"
    code, checked, _ = type_("check")
    assert code == 1
    assert len(checked.splitlines()) == len(lines) - 1
    assert all("; run `sluicegate topics apply`" in line for line in checked.splitlines())
    code, done, _ = type_("apply")
    assert (code, done.splitlines()[:-1]) == (0, lines[:-1])
    assert type_("apply")[:2] == (0, "  done: 0 to create, 0 to change, 0 to remove; left: 0\n")
    assert type_("plan")[:2] == (0, "  nothing to do\n")
    assert type_("check")[:2] == (0, "  topics and rights are as they should be\n")
    code, out, _ = type_("check", "--json")
    assert (code, json.loads(out)) == (0, {"done": [], "deviations": [], "strangers": []})
    write_directory(untouched.directory, {HELPDESK: "helpdesk"})
    code, out, _ = type_("plan", "--revoke")
    assert code == 2
    assert all(line.startswith("  - right: User:") for line in out.splitlines()[:-2])
    assert f"(topic `{untouched.topic('replies.triage')}` is not in the table" in out
    assert type_("plan")[0] == 2
    assert type_("apply")[0] == 1
    assert type_("apply", "--revoke")[0] == 0
    assert type_("check")[0] == 0


def test_the_command_says_why_the_broker_does_not_take_it(
    untouched: SecuredTenant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    password = untouched.settings.sasl_password_file
    assert password is not None
    password.write_text("not.the.password\n")
    code, _, err = type_topics(untouched, monkeypatch, capsys, "check")
    assert code == 2
    assert f"does not know user `{ADMIN}` with this password (SCRAM-SHA-512)" in err
    assert "not.the.password" not in err
    monkeypatch.setenv("SLUICEGATE_SASL_MECHANISM", "PLAIN")
    assert main(untouched.words("check")) == 2
    assert "does not offer PLAIN" in capsys.readouterr().err


async def test_an_open_broker_is_told(apache_kafka: str, tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path, tenant=f"t{next(TENANTS)}", bootstrap=apache_kafka, broker="kafka", replication=1
    )
    applications = Applications(services=frozenset(), replies={})
    realm = realm_of(settings, applications)
    (told,) = (await apply(settings, applications, realm=realm, revoke=False, done=lambda _: None)).deviations
    assert "has no authorizer" in told.what
    assert (await examine(settings, applications, realm=None)).deviations == ()
    protocol = settings.model_copy(update={"security_protocol": "SSL"})
    with pytest.raises((ConfigurationError, Unavailable), match="SLUICEGATE_SECURITY_PROTOCOL"):
        await examine(protocol, applications, realm=None)


async def test_one_machine_makes_its_own_topics(broker_address: str, apache_kafka: str, tmp_path: Path) -> None:
    embedded = broker_address != apache_kafka
    settings = Settings(
        home=tmp_path,
        tenant=f"t{next(TENANTS)}",
        bootstrap=broker_address,
        event_time="enforcer" if embedded else "broker",
        replication=1,
    )
    await ensure(settings, {})
    await ensure(settings, REPLIES)
    async with TopicAdmin(broker_config(settings, "test")) as admin:
        topics = await admin.topics()
        found = {name: topic.partitions for name, topic in topics.items() if name.startswith(f"{settings.tenant}.")}
        assert found == {spec.name: spec.partitions for spec in topics_wanted(settings, REPLIES)}
        if not embedded:
            changed = SetConfigs(topic=f"{settings.tenant}.policy", configs={"retention.ms": "1000"})
            await admin.do(changed)
            await ensure(settings, REPLIES)
            applications = Applications(services=frozenset(), replies=REPLIES)
            assert await examine(settings, applications, realm=None) == Examined(deviations=(), strangers=())
    with pytest.raises(ConfigurationError, match="has 2 partitions, not 3"):
        await ensure(settings.model_copy(update={"partitions": 3}), REPLIES)
