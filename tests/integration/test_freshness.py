"""Freshness over a real broker: nothing is decided by a policy state that may lack something; what says so is signed.

The worker is the enforcer's gate and lane as `wiring` joins them, over the example company; its clock is the test's.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count

import pytest
from company import DOMAIN, FAR_MS, NOON_MS, gate_of, policy_events, private_key, record, request
from securesystemslib.signer import CryptoSigner
from stages import signer

from sluicegate.enforcer.freshness import Freshness, sign_freshness
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import Verifier
from sluicegate.enforcer.state import PolicyLog
from sluicegate.enforcer.stops import Scope, Stop, stops_content
from sluicegate.enforcer.trust import Domain, digest_of
from sluicegate.enforcer.trust_make import sign_targets
from sluicegate.keys import signer_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.events import DecisionMade, PolicyKind, PolicyPublished, Verdict
from sluicegate.schemas.records import Record, Unsent
from sluicegate.streams.freshness_tail import FreshnessTail
from sluicegate.streams.freshness_writer import IDLE_AFTER_S, IDLE_INTERVAL_S, Demand, FreshnessWriter, always
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.lane import Lane
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import ENFORCER, Topology

EVENTS = policy_events()
ANSWER_LIMIT_S = 15.0
PARTITION = record(request()).partition
WITHHELD_S = 1.5
"""Longer than a promise reaches, so that nothing asked after it is covered by what was said before."""


class HeldBack(PolicyTail):
    """A view of the policy log that somebody can hold records back from."""

    holding = False
    held: tuple[Record, ...] = ()

    def receive(self, record: Record) -> None:
        if self.holding:
            self.held = (*self.held, record)
        else:
            super().receive(record)

    def let_go(self) -> None:
        self.holding = False
        for each in self.held:
            super().receive(each)


class House:
    """A broker with the company's policy, one worker of the enforcer, and a freshness stage that can be killed."""

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self.broker, self.topology = broker, topology
        self._began_s = time.monotonic()
        self._numbers = count()
        self._asked = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._started: list[PolicyTail | FreshnessTail] = []
        self.policy: HeldBack
        self.freshness: FreshnessTail
        self.lane: Lane

    def now_ms(self) -> int:
        return NOON_MS + int((time.monotonic() - self._began_s) * 1000)

    async def begin(self) -> None:
        await self.broker.create_topics(self.topology.topics)
        for event in EVENTS:
            await self.publish(event)

    async def publish(self, event: object) -> None:
        value = codec.encode(event)  # type: ignore[arg-type]
        await self.broker.append(self.topology.policy, 0, [Unsent(key=None, value=value)], timestamp_ms=self.now_ms())

    async def follow(self) -> HeldBack:
        tail = HeldBack(
            self.broker,
            topic=self.topology.policy,
            state=PolicyLog(domain=DOMAIN, root_digest=digest_of(EVENTS[0].metadata)),
        )
        await tail.start(timeout_s=20)
        self._started.append(tail)
        return tail

    async def start_worker(self, *, stale_after_ms: int = 60_000, covered: bool = False) -> None:
        """`covered`: a worker as it would be without freshness: the control."""
        self.policy = await self.follow()
        self.freshness = FreshnessTail(
            self.broker,
            topic=self.topology.freshness,
            policy=self.policy,
            domain=DOMAIN,
            stale_after_ms=stale_after_ms,
        )
        await self.freshness.start()
        self._started.append(self.freshness)
        place = self.topology.place(ENFORCER, env=DOMAIN.env, epoch=1, partition=PARTITION)
        guarded = {} if covered else {"may_decide": self.freshness.may_decide}
        self.lane = Lane(
            broker=self.broker,
            stage=gate_of(self.policy.rules_at if covered else self.freshness.rules_at, PARTITION),
            verifier=Verifier(place, lambda: self.policy.stage_keys(ENFORCER)),
            signer=signer(ENFORCER),
            source_topic=self.topology.requests,
            output=DecisionMade,
            slice_bytes_max=900_000,
            may_append=lambda: True,
            clock_ms=self.now_ms,
            **guarded,
        )
        await self.lane.recover()

    async def start_freshness(
        self, key: str = "freshness", *, wanted: Callable[[], Awaitable[bool]] = always
    ) -> asyncio.Task[None]:
        writer = FreshnessWriter(
            self.broker,
            topic=self.topology.freshness,
            policy=await self.follow(),
            domain=DOMAIN,
            signer_for=lambda _: signer_of(private_key(key)),
            clock_ms=self.now_ms,
            now_ms=self.now_ms,
            timeout_s=10,
        )
        ready = asyncio.Event()
        task = asyncio.create_task(writer.run(asyncio.Event(), ready=ready.set, wanted=wanted))
        self._tasks.append(task)
        await asyncio.wait_for(ready.wait(), ANSWER_LIMIT_S)
        return task

    async def ask(self) -> list[Record]:
        """One more proved request, as it stands on the log; everything that was asked so far."""
        number = next(self._numbers)
        made = record(request(f"r{number}"), offset=number, at_ms=self.now_ms())
        sent = Unsent(key=made.key, value=made.value, headers=made.headers)
        await self.broker.append(self.topology.requests, PARTITION, [sent], timestamp_ms=made.timestamp_ms)
        reading = self.broker.read(self.topology.requests, PARTITION, start=0)
        return [each async for batch in reading for each in batch]

    async def answer(self) -> DecisionMade:
        """Asks once more and has it decided."""
        records = await self.ask()
        await asyncio.wait_for(self.lane.advance(records), ANSWER_LIMIT_S)
        return (await self.decided())[-1]

    async def until_allowed(self) -> None:
        """Asks again and again, as clients do."""
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while verdict(await self.answer()) != ALLOWED:  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    async def until_decidable(self, time_ms: int) -> None:
        async with asyncio.timeout(ANSWER_LIMIT_S):
            while not self.freshness.may_decide(time_ms):  # noqa: ASYNC110 - a tail tells nobody
                await asyncio.sleep(0.01)

    async def decided(self) -> list[DecisionMade]:
        reading = self.broker.read(self.topology.decisions, PARTITION, start=0)
        return [codec.decode(each.value, DecisionMade) async for batch in reading for each in batch]

    async def write(self, *values: bytes, stamp_ms: int | None = None) -> None:
        """What an attacker with the right to write freshness writes."""
        for value in values:
            await self.broker.append(
                self.topology.freshness, 0, [Unsent(key=None, value=value)], timestamp_ms=stamp_ms or self.now_ms()
            )

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in reversed(self._started):
            await each.stop()


@pytest.fixture
async def house(tansu: str, topology: Topology) -> AsyncIterator[House]:
    async with Broker(BrokerConfig(bootstrap=tansu, client_id="test", fetch_wait_ms=20)) as broker:
        made = House(broker, topology)
        await made.begin()
        try:
            yield made
        finally:
            await made.end()


async def killed(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def stop_all() -> PolicyPublished:
    content = stops_content({Stop(scope=Scope.ALL)})
    metadata = sign_targets(
        Kind.STOP,
        content,
        domain=DOMAIN,
        version=1,
        effective_at_ms=0,
        expires_ms=FAR_MS,
        signers=(signer_of(private_key("publisher")),),
    )
    return PolicyPublished(kind=PolicyKind.STOP, version=1, metadata=metadata, content=content)


def verdict(decision: DecisionMade) -> tuple[Verdict, Code]:
    return decision.verdict, decision.code


ALLOWED = (Verdict.ALLOW, Code.OK)
STALE = (Verdict.DENY, Code.POLICY_STALE)


async def test_a_request_after_a_quiet_time_brings_the_promises_back(house: House) -> None:
    demand = Demand(
        house.broker,
        topic=house.topology.requests,
        partitions=house.topology.partitions,
        monotonic_s=lambda: 60 * time.monotonic(),
    )
    await house.start_freshness(wanted=demand)
    await house.start_worker()
    assert verdict(await house.answer()) == ALLOWED
    await asyncio.sleep(3 * IDLE_AFTER_S / 60)  # a fault would be that nothing happens: there is nothing to wait for
    before = await house.broker.end_offset(house.topology.freshness, 0)
    await asyncio.sleep(2 * IDLE_AFTER_S / 60)
    quiet = await house.broker.end_offset(house.topology.freshness, 0) - before

    assert verdict(await house.answer()) == ALLOWED
    assert quiet <= 2 * IDLE_AFTER_S / IDLE_INTERVAL_S + 1


async def test_without_the_stage_requests_wait_then_are_denied_and_with_it_allowed_again(house: House) -> None:
    stage = await house.start_freshness()
    await house.start_worker(stale_after_ms=1_500)
    assert verdict(await house.answer()) == ALLOWED
    began_s = time.monotonic()
    for _ in range(5):
        assert verdict(await house.answer()) == ALLOWED
    assert time.monotonic() - began_s < 5, "in steady state nothing waits"
    await killed(stage)
    await asyncio.sleep(0.7)  # what was promised is over
    before = len(await house.decided())
    waiting = asyncio.create_task(house.lane.advance(await house.ask()))
    await asyncio.sleep(0.4)
    assert not waiting.done()
    assert len(await house.decided()) == before, "what is not covered is decided in no way"
    await asyncio.wait_for(waiting, ANSWER_LIMIT_S)
    denied = (await house.decided())[-1]
    assert verdict(denied) == STALE
    assert denied.policy is None
    assert "sluicegate run freshness" in denied.reason
    began_s = time.monotonic()
    assert verdict(await house.answer()) == STALE, "and from now on at once"
    assert time.monotonic() - began_s < 1
    await house.start_freshness()
    await house.until_allowed()


async def test_a_lane_that_is_given_up_while_it_waits_appends_nothing(house: House) -> None:
    await house.start_worker()
    waiting = asyncio.create_task(house.lane.advance(await house.ask()))
    await asyncio.sleep(0.2)
    await asyncio.wait_for(house.lane.close(), 1)
    with pytest.raises(Exception, match="given up"):
        await asyncio.wait_for(waiting, 2)
    assert await house.decided() == []


def forged(house: House, old: list[bytes]) -> list[bytes]:
    """Records by whoever has no key of the root's: of their own, of others, copied, changed, and no records at all."""
    far = Freshness(position=-1, nothing_before_ms=house.now_ms() + 3_600_000)
    stranger = CryptoSigner(private_key("stranger"))
    publisher = signer_of(private_key("publisher"))
    lifted = json.loads(old[-1])
    lifted["signed"]["version"] += 3_600_000
    lower = json.loads(old[-1])
    lower["signed"]["x-sluicegate"]["position"] = -1
    elsewhere = Domain(env=DOMAIN.env, tenant="other")
    return [
        sign_freshness(far, domain=DOMAIN, expires_ms=FAR_MS, signer=stranger),
        sign_freshness(far, domain=DOMAIN, expires_ms=FAR_MS, signer=publisher),
        sign_freshness(far, domain=elsewhere, expires_ms=FAR_MS, signer=signer_of(private_key("freshness"))),
        json.dumps(lifted).encode(),
        json.dumps(lower).encode(),
        b"",
        b"\xff" * 100,
        b"[" * 10_000,
        b"{}" * 10_000,
        old[0],
        old[-1],
    ]


async def test_who_may_write_and_has_no_key_changes_nothing(house: House) -> None:
    stage = await house.start_freshness()
    await house.start_worker(stale_after_ms=2_000)
    assert verdict(await house.answer()) == ALLOWED
    reading = house.broker.read(house.topology.freshness, 0, start=0)
    old = [each.value async for batch in reading for each in batch if each.value]
    for _ in range(10):
        await house.write(*forged(house, old))
        await house.write(*old[:2], stamp_ms=house.now_ms() + 3_600_000)
        assert verdict(await house.answer()) == ALLOWED
    assert house.freshness.refused > 50
    # Without the genuine stage they do not stand in for it.
    await killed(stage)
    await asyncio.sleep(2.2)
    await house.write(*forged(house, old))
    assert verdict(await house.answer()) == STALE
    # Control: the same words, signed by the root's key, count.
    far = Freshness(position=house.policy.state.position, nothing_before_ms=house.now_ms() + 3_600_000)
    by_key = signer_of(private_key("freshness"))
    await house.write(sign_freshness(far, domain=DOMAIN, expires_ms=house.now_ms() + 60_000, signer=by_key))
    await house.until_allowed()


@pytest.mark.parametrize("covered", [False, True], ids=["with freshness", "control without"])
async def test_a_worker_from_whom_a_stop_is_withheld_decides_nothing(house: House, *, covered: bool) -> None:
    await house.start_freshness()
    await house.start_worker(covered=covered)
    assert verdict(await house.answer()) == ALLOWED
    house.policy.holding = True
    await house.publish(stop_all())
    await asyncio.sleep(WITHHELD_S)
    if covered:
        assert verdict(await house.answer()) == ALLOWED, "a worker that trusts its own view allows what was stopped"
        return
    waiting = asyncio.create_task(house.lane.advance(await house.ask()))
    await asyncio.sleep(WITHHELD_S)
    assert not waiting.done()
    assert len(await house.decided()) == 1
    house.policy.let_go()
    await asyncio.wait_for(waiting, ANSWER_LIMIT_S)
    assert verdict((await house.decided())[-1]) == (Verdict.DENY, Code.STOPPED)


async def test_what_was_covered_is_decided_the_same_by_a_worker_that_knows_more(house: House) -> None:
    await house.start_freshness()
    await house.start_worker()
    records = await house.ask()
    time_ms = house.now_ms()
    await house.until_decidable(time_ms)
    first = gate_of(house.freshness.rules_at, PARTITION).decide(records, frontier=0, time_ms=0, clock_ms=time_ms)
    await house.publish(stop_all())
    await asyncio.sleep(1)
    await house.start_worker()  # another, which reads the policy from its start
    later_ms = house.now_ms()
    await house.until_decidable(later_ms)
    gate = gate_of(house.freshness.rules_at, PARTITION)
    assert gate.decide(records, frontier=0, time_ms=0, clock_ms=time_ms) == first
    assert codec.decode(first.outputs[0].value, DecisionMade).code is Code.OK
    stopped = gate.decide(records, frontier=0, time_ms=0, clock_ms=later_ms)
    assert codec.decode(stopped.outputs[0].value, DecisionMade).code is Code.STOPPED
