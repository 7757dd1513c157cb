"""A candidate that turns permissions round decides in shadow beside the real stack: nothing but the audit shows it.

The same bundle, published, is the control: then it is obeyed.
"""

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from by_hand import ANSWER_LIMIT_S, SERVICE
from company import private_key
from fixtures_broker import KINDS, need_kafka
from fixtures_stack import StackPlace, ask, broker_of, effective, until, whole, with_tiny_model

from sluicegate.dev_client import Client
from sluicegate.enforcer.grant import source_of
from sluicegate.enforcer.seal import Signer, seal_slice
from sluicegate.enforcer.shadow import shadow_decide
from sluicegate.enforcer.shadow_stage import outcome_event
from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade
from sluicegate.schemas.ids import KeyId
from sluicegate.schemas.records import Unsent
from sluicegate.schemas.shadow_events import ShadowDecided, ShadowStatus
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import decode_policy_event
from sluicegate.streams.topology import ENFORCER, SHADOW, Topology

ALLOWED, FORBIDDEN = ("ian.intern", "writing"), ("ana.support", "people")
TURNED_ROUND = (
    (
        "brakes.cedar",
        "unless { principal.purposes.contains(context.purpose) }",
        'when { principal == User::"ian.intern" }',
    ),
    ("access.cedar", "", '\n@id("everybody")\npermit (principal, action == Action::"generate", resource);\n'),
)
STAGE_LIMIT_S = 60.0


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StackPlace]:
    if request.param == "kafka":
        need_kafka()
    made = with_tiny_model(tmp_path, SLUICEGATE_BROKER=request.param)
    try:
        made.up()
        yield made
    finally:
        made.end()


def candidate(place: StackPlace) -> Path:
    folder = place.folder / "candidate"
    shutil.copytree(place.folder / "policies", folder)
    for name, old, new in TURNED_ROUND:
        text = (folder / name).read_text()
        assert not old or text.count(old) == 1
        (folder / name).write_text(text.replace(old, new) if old else text + new)
    return folder


def typed(place: StackPlace, *words: str, code: int = 0) -> str:
    found, out, err = place.type("policy", "shadow", *words)
    assert found == code, (words, out, err)
    return out


class Asking:
    """Asks both questions again and again, and knows which decisions they got."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._count = 0
        self.codes: dict[str, Code] = {}

    async def pair(self) -> tuple[Code, Code]:
        """The codes that the allowed and the forbidden question end with."""
        found: list[Code] = []
        for person, purpose in (ALLOWED, FORBIDDEN):
            self._count += 1
            request = ask(f"shadow-{self._count}", purpose=purpose, max_tokens=2)
            key = await self._client.submit(request, service=SERVICE, person=person)
            release = await self._client.release_of(key, ANSWER_LIMIT_S)
            found.append(release.code)
            self.codes[release.decision_id or ""] = release.code
        return found[0], found[1]


async def outcomes(broker: Broker, settings: Settings) -> int:
    """How many effective records the stage has written."""
    found = [await effective(broker, settings, SHADOW, partition) for partition in range(settings.partitions)]
    return sum(map(len, found))


async def forge(broker: Broker, settings: Settings) -> int:
    """Writes what somebody with the right to write, and with no key of the stage's, can write; how many records."""
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    count = 0
    for partition in range(topology.partitions):
        genuine = await effective(broker, settings, SHADOW, partition)
        lies = [Unsent(key=None, value=b"\xc3\x01nothing")]
        lies += [Unsent(key=None, value=each.value or b"", headers=each.headers) for each in genuine[-3:]]
        place = topology.place(SHADOW, env=settings.env, epoch=settings.epoch, partition=partition)
        at = await broker.end_offset(topology.shadow, partition) + len(lies)
        stranger = Signer(key_id=KeyId("shadow-0"), private=private_key("stranger"))
        lies += seal_slice(
            [Unsent(key=None, value=each.value or b"") for each in genuine[-1:]] or lies[:1],
            place=place, at=at, source_first=0, source_last=0, time_ms=1, policy_position=0, signer=stranger,
        )  # fmt: skip
        await broker.append(topology.shadow, partition, lies)
        count += len(lies)
    return count


async def folded(broker: Broker, settings: Settings) -> PolicyLog:
    """The policy log, folded from its bytes by nobody of the stack."""
    installation = Installation(settings, Home(root=settings.home))
    made = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    for record in await whole(broker, topology.policy, 0):
        made.fold(record.offset, decode_policy_event(record), record.timestamp_ms)
    return made


async def purely(broker: Broker, settings: Settings) -> dict[str, ShadowDecided]:
    """What the decider says of every effective decision while a candidate stood, by decision."""
    policy = await folded(broker, settings)
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    found: dict[str, ShadowDecided] = {}
    for partition in range(topology.partitions):
        requests = await whole(broker, topology.requests, partition)
        for record in await effective(broker, settings, ENFORCER, partition):
            decision = codec.decode(record.value, DecisionMade)
            shadow = policy.shadow_at(decision.time_ms)
            said = shadow_decide(requests[decision.source.offset], decision, shadow, schema_ids={})
            if getattr(said, "reason", "") != "no candidate stands":
                found[decision.decision_id] = outcome_event(source_of(record), decision, said)
    return found


def audited(place: StackPlace) -> list[ShadowDecided]:
    rows = place.sql("SELECT hex(value) AS value FROM shadow WHERE effective = 1 AND status != 'PASSED'")
    return [codec.decode(bytes.fromhex(row["value"]), ShadowDecided) for row in rows]


async def all_audited(place: StackPlace, broker: Broker, settings: Settings, asked: Asking) -> dict[str, ShadowDecided]:
    """What the audit has, once it is what the decider says purely; each decision once."""
    deadline = time.monotonic() + STAGE_LIMIT_S
    while True:
        wanted = await purely(broker, settings)
        found = await asyncio.to_thread(audited, place)
        if {each.decision_id for each in found} >= set(wanted) and set(wanted) <= set(asked.codes):
            assert len(found) == len(wanted), "one outcome a decision"
            assert {each.decision_id: each for each in found} == wanted
            return wanted
        assert time.monotonic() < deadline, (len(found), len(wanted))
        await asyncio.sleep(0.3)


@pytest.mark.timeout(600)
def test_nothing_but_the_audit_shows_what_a_candidate_says(place: StackPlace) -> None:
    asyncio.run(body(place))


async def body(place: StackPlace) -> None:
    folder, settings = candidate(place), place.attached()
    before = (Code.OK, Code.DENIED)
    async with Client(settings) as client, broker_of(settings) as broker:
        asked = Asking(client)
        assert await asked.pair() == before
        assert "shadow" not in place.pids()
        await asyncio.to_thread(typed, place, "start", str(folder), "--for", "1h")
        await asyncio.to_thread(until, lambda: "shadow" in place.pids(), STAGE_LIMIT_S)
        first = place.pids()["shadow"]
        assert await asked.pair() == before
        async with asyncio.timeout(STAGE_LIMIT_S):
            while not await outcomes(broker, settings):  # noqa: ASYNC110 - a log tells nobody
                await asyncio.sleep(0.1)
        for _ in range(2):
            assert await asked.pair() == before
        # Killed in the middle, and what others write to its topic: nobody who asks notices.
        os.kill(first, signal.SIGKILL)
        for _ in range(2):
            assert await asked.pair() == before
        forged = await forge(broker, settings)
        await asyncio.to_thread(until, lambda: place.pids()["shadow"] != first, STAGE_LIMIT_S)
        forged += await forge(broker, settings)
        for _ in range(2):
            assert await asked.pair() == before
        assert place.state().ready
        wanted = await all_audited(place, broker, settings, asked)
        assert all(each.status is ShadowStatus.DECIDED for each in wanted.values())
        assert len(wanted) >= 12, "what was asked after it started, the killed time among it"
        report = json_report(place)
        (compared,) = report["compared"]
        figures = compared["figures"]
        denied = sum(asked.codes[each] is Code.OK for each in wanted)
        assert (figures["newly_denied"], figures["newly_allowed"]) == (denied, len(wanted) - denied)
        assert (figures["tightened"], figures["loosened"]) == (denied, len(wanted) - denied)
        assert sum(count for _, count in report["foreign"]) == forged
        assert (report["failures"], report["misquoting_count"], report["not_landed"]) == ([], 0, 0)

        assert "has ended" in await asyncio.to_thread(typed, place, "stop")
        await asyncio.sleep(1)
        assert await asked.pair() == before

        # One that does not load: the command refuses it; set by other means, each decision says so.
        broken = place.folder / "broken"
        shutil.copytree(place.folder / "policies", broken)
        (broken / "access.cedar").write_text("permit (")
        code, _, err = place.type("policy", "shadow", "start", str(broken))
        assert (code, "access.cedar" in err) == (1, True)
        async with policy_writer(settings, Installation(settings, Home(root=settings.home))) as writer:
            await writer.change_shadow(b"no bundle")
        await asyncio.sleep(1)
        assert await asked.pair() == before
        await all_audited(place, broker, settings, asked)
        (failure,) = json_report(place)["failures"]
        assert failure["count"] == 2
        assert "is not valid" in failure["reason"]

        # The control: published, the same bundle is obeyed.
        code, out, err = await asyncio.to_thread(place.type, "publish", SLUICEGATE_BUNDLE_DIR=str(folder))
        assert code == 0, (out, err)
        await asyncio.sleep(1)
        assert await asked.pair() == (Code.DENIED, Code.OK)


def json_report(place: StackPlace) -> dict[str, Any]:
    return json.loads(typed(place, "report", "--format", "json", code=1))
