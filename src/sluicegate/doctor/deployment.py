"""A broker's address goes in, what is wrong with the policy, the stages and the clocks behind it comes out."""

import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from sluicegate.audit_access import audit_config
from sluicegate.broker_access import broker_config
from sluicegate.doctor.findings import Finding, fail, ok, warn
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import NotReady, PolicyLog
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import KeyFolder, KeyKind, key_id_of
from sluicegate.policy_versions import EXPIRY_WARN_MS
from sluicegate.registry import ids_at_start
from sluicegate.schemas.errors import ConfigurationError, SluicegateError
from sluicegate.settings import Settings
from sluicegate.sinks.serve import asking
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PARTITION, PolicyTail
from sluicegate.streams.topology import DELIVERY, ENFORCER, REDACTOR, RUNNER, SEALED, Topology
from sluicegate.topics import Applications, Examined, examine, read_applications, read_directory, realm_of

GROUPED: Final = (ENFORCER, RUNNER, REDACTOR, DELIVERY)
SKEW_MS_MAX: Final = 5_000
READ_S: Final = 20.0


def check_members(members: Mapping[str, int]) -> Iterator[Finding]:
    """`members`: how many workers the group of each stage has."""
    idle = [stage for stage, count in members.items() if count == 0]
    for stage in idle:
        yield fail(
            "stages", f"no {stage} works for this tenant", f"start one with `sluicegate run {stage}` and see its log"
        )
    if not idle:
        yield ok("stages", ", ".join(f"{count} {stage}" for stage, count in members.items()))


def check_policy(state: PolicyLog, *, now_ms: int, expires_ms: Mapping[str, int]) -> Iterator[Finding]:
    """Whether a policy is in force at `now_ms`, and for how long; `expires_ms` of root, bundle and directory."""
    rules = state.at(now_ms)
    if isinstance(rules, NotReady):
        yield fail("policy", f"everything is denied: {rules.reason}", "run `sluicegate publish`")
        return
    version = rules.version
    yield ok(
        "policy",
        f"bundle v{version.bundle_version}, directory v{version.directory_version}, root v{version.root_version}",
    )
    for name, end_ms in expires_ms.items():
        if end_ms - now_ms < EXPIRY_WARN_MS:
            day = datetime.fromtimestamp(end_ms / 1000, tz=UTC).date()
            yield warn("policy", f"the {name} expires on {day}", "publish its next version before")


def check_stage_keys(state: PolicyLog, own: Mapping[str, str], *, now_ms: int) -> Iterator[Finding]:
    """`own`: the id of each stage key that lies in the key folder of this installation."""
    bad = 0
    for stage, key_id in own.items():
        admitted = state.stage_keys(stage)
        found = next((key for name, key in admitted.items() if name == key_id), None)
        mend = f"run `sluicegate keys new stage {stage}` and publish it, or put the admitted key back"
        if found is None:
            bad += 1
            yield fail("stage keys", f"the {stage}'s key `{key_id}` is not admitted: its seals are void", mend)
        elif found.revoked_at_ms is not None and found.revoked_at_ms <= now_ms:
            bad += 1
            yield fail("stage keys", f"the {stage}'s key `{key_id}` is revoked: its seals are void", mend)
    if own and not bad:
        yield ok("stage keys", f"{', '.join(own)}: admitted")


def check_stamps(stamps: Mapping[str, int], *, now_ms: int) -> Iterator[Finding]:
    """`stamps`: the broker's stamp of the newest record of each topic that it stamps itself, milliseconds."""
    ahead = {topic: stamp - now_ms for topic, stamp in stamps.items() if stamp - now_ms > SKEW_MS_MAX}
    for topic, lead_ms in ahead.items():
        yield fail(
            "clocks",
            f"the broker's stamp on `{topic}` is {lead_ms / 1000:.0f} s ahead of this machine's clock",
            "set the clocks of broker and stages by one time service: proofs and deadlines are judged by both",
        )
    if not ahead:
        yield ok("clocks", "no broker's stamp is ahead of this machine's clock")


async def read_policy(broker: Broker, topic: str, state: PolicyLog) -> PolicyLog:
    """The policy log folded as every stage folds it.

    Raises:
        Unavailable: it was not read to its end in time.
    """
    tail = PolicyTail(broker, topic=topic, state=state)
    try:
        await tail.start(timeout_s=READ_S)
    finally:
        await tail.stop()
    return state


async def newest_stamps(broker: Broker, topology: Topology) -> dict[str, int]:
    """The broker's stamp of the newest record of `requests` and `policy`, where there is one."""
    found: dict[str, int] = {}
    places = [(topology.policy, PARTITION), *((topology.requests, each) for each in range(topology.partitions))]
    for topic, partition in places:
        end = await broker.end_offset(topic, partition)
        if end <= await broker.start_offset(topic, partition):
            continue
        async for batch in broker.read(topic, partition, start=end - 1, end=end):
            for record in batch:
                found[topic] = max(found.get(topic, 0), record.timestamp_ms)
    return found


def check_topics(examined: Examined) -> Iterator[Finding]:
    """How the broker's topics and rights differ from the table."""
    for each in examined.deviations:
        yield fail("topics", each.what, each.how)
    for topic in examined.strangers:
        yield warn("topics", f"nobody knows the topic `{topic}`", "remove it, or give it another prefix")
    if not examined.deviations:
        yield ok("topics", "topics, settings and rights are as the table wants them")


async def check_deployment(settings: Settings, *, one_box: bool) -> AsyncIterator[Finding]:
    """Everything behind `settings.bootstrap`. `one_box`: the stack of this machine, which gives nobody rights."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    now_ms = time.time_ns() // 1_000_000
    stamped = settings.event_time == "broker"
    try:
        async with Broker(broker_config(settings, "doctor")) as broker:
            yield ok("broker", f"answers at {settings.bootstrap}")
            applications = _applications(settings, one_box=one_box)
            realm = None if one_box else realm_of(settings, applications)
            examined = await examine(settings, applications, realm=realm)
            for each in check_topics(examined):
                yield each
            state = await read_policy(broker, topology.policy, _policy_log(settings))
            stamps = await newest_stamps(broker, topology) if stamped else {}
            members = {stage: await broker.members(topology.group(stage)) for stage in GROUPED}
    except ConfigurationError as error:
        yield fail("broker", str(error), "mend the setting or the right that it names")
        return
    except SluicegateError as error:
        yield fail("broker", str(error), "mend what it names and try again")
        return
    deciding = (Kind.ROOT, Kind.ROLES, Kind.BUNDLE, Kind.DIRECTORY)
    expires = {kind.value.lower(): state.expires_ms(kind) for kind in deciding}
    found = [
        *check_policy(state, now_ms=now_ms, expires_ms={name: end for name, end in expires.items() if end is not None}),
        *check_stage_keys(state, _own_keys(settings), now_ms=now_ms),
        *(check_stamps(stamps, now_ms=now_ms) if stamped else ()),
        *check_members(members),
    ]
    for each in found:
        yield each


async def check_registry(settings: Settings) -> AsyncIterator[Finding]:
    """Whether the schema registry knows our schemas; nothing where none is configured."""
    if not settings.registry_url:
        return
    try:
        ids = await ids_at_start(settings)
    except SluicegateError as error:
        yield fail("registry", str(error), "run `sluicegate schemas register`, or unset `SLUICEGATE_REGISTRY_URL`")
        return
    yield ok("registry", f"{len(ids)} schemas registered")


def check_audit(settings: Settings, home: Home) -> Iterator[Finding]:
    """Whether the audit answers an auditor's question."""
    try:
        with asking(audit_config(settings, home, reads=True)) as auditor:
            rows = auditor.sql("SELECT count() FROM requests").rows
    except SluicegateError as error:
        yield fail("audit", str(error), "start the sink, or mend the `SLUICEGATE_CLICKHOUSE_*` settings")
        return
    yield ok("audit", f"answers, {rows[0][0]} requests recorded")


def _applications(settings: Settings, *, one_box: bool) -> Applications:
    if not one_box:
        return read_applications(settings.directory)
    installation = Installation(settings, Home(root=settings.home), development=True)
    found = parse_credentials(json.loads(installation.directory_content(read_directory(settings.directory))))
    return Applications(services=frozenset(found.replies), replies=found.replies)


def _policy_log(settings: Settings) -> PolicyLog:
    installation = Installation(settings, Home(root=settings.home))
    return PolicyLog(domain=installation.domain, root_digest=installation.root_digest())


def _own_keys(settings: Settings) -> dict[str, str]:
    """The ids of the stage keys that lie in the key folder, newest of each stage; none is made."""
    folder = KeyFolder(settings.keys_dir or Home(root=settings.home).keys, may_make=False)
    found = {}
    for stage in SEALED:
        names = folder.of(KeyKind.STAGE, stage)
        if names:
            found[stage] = key_id_of(folder.load(names[0]), stage)
    return found
