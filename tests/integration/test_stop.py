"""`sluicegate stop` and `resume` over a real broker: what is typed holds at a stage that follows the policy log."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deployment import SEALING, Deployment
from fixtures_broker import TENANTS
from memory_log import MemoryLog
from policy_events import DOMAIN, policy_log, root_event, stops
from runner_lane import generations, lane, put_decisions, until
from stages import TOPICS, decision

from sluicegate.enforcer.grant import Grant
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.state import PolicyLog, Rules
from sluicegate.enforcer.stops import Scope, Stop
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code
from sluicegate.schemas.records import Unsent
from sluicegate.streams.generate import Ran
from sluicegate.streams.kafka import Broker, BrokerConfig
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import Topology

ANA = Stop(scope=Scope.PRINCIPAL, name='User::"ana"')
LIMIT_S, ROUNDS = 2.0, 30


@pytest.fixture
def deployment(tansu: str, tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path, bootstrap=tansu, tenant=f"t{next(TENANTS)}", partitions="1", fetch_wait_ms="20")
    made.make_keys()
    for stage in SEALING:
        made.host(stage, stage)
    made.service("helpdesk-app", made.hosts["enforcer"])
    return made


def test_what_is_stopped_is_obeyed_within_two_seconds_and_undone_by_name(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = deployment.publisher.loaded()
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    installation = Installation(settings, Home(root=settings.home))
    made = decision(0)

    async def typed(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(deployment.publisher.type, *words)
        return code, capsys.readouterr().out

    async def body() -> None:
        async with Broker(BrokerConfig(bootstrap=settings.bootstrap, client_id="test", fetch_wait_ms=20)) as broker:
            await broker.create_topics(topology.topics)
            assert (await typed("publish"))[0] == 0
            state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
            tail = PolicyTail(broker, topic=topology.policy, state=state)
            assert tail.stopped(made), "before the log is followed nothing may go on"
            await tail.start(timeout_s=20)
            assert not tail.stopped(made)
            assert await typed("stop", "principal", ANA.name) == (0, f"  stopped  {ANA}\n  stands   {ANA}\n")
            async with asyncio.timeout(LIMIT_S):
                while not tail.stopped(made):  # noqa: ASYNC110 - as a model call asks: again and again
                    await asyncio.sleep(0.01)
            # The gate denies by it from the log's own time on, and not at an earlier T.
            held = state.at(state.log_ms + 500)
            before = state.at(state.log_ms + 499)
            assert isinstance(held, Rules)
            assert isinstance(before, Rules)
            assert (held.stops.standing, before.stops.standing) == ({ANA}, frozenset())
            assert (await typed("stop", "principal", ANA.name))[1].startswith(f"  stopped  {ANA} (it was already)")
            assert (await typed("stop", "all"))[0] == 0
            code, said = await typed("resume", "principal", ANA.name)
            assert (code, said) == (0, f"  resumed  {ANA}\n  stands   all\n")
            assert (await typed("resume", "all"))[0] == 0
            assert (await typed("resume", "all"))[1] == "  all was not stopped\n"
            await tail.reach_end(timeout_s=10)
            assert not tail.stopped(made)
            await tail.stop()
            assert tail.stopped(made), "who hears of no stops any more stops"

    asyncio.run(body())


@pytest.mark.parametrize(
    "words", [("stop", "model"), ("stop", "all", "x"), ("stop", "principal", "ana"), ("stop", "x")]
)
def test_what_cannot_be_stopped_is_said_before_anything_is_signed(
    deployment: Deployment, words: tuple[str, ...]
) -> None:
    assert deployment.publisher.type(*words) == 2


class EndlessModel:
    """Writes a token every few milliseconds until it is told to stop, and never ends by itself; many at once."""

    def __init__(self) -> None:
        self.running = 0

    async def run(self, grant: Grant, *, cancelled: Callable[[], bool]) -> Ran:
        self.running += 1
        while not cancelled():  # noqa: ASYNC110 - as an engine asks, before each token
            await asyncio.sleep(0.005)
        self.running -= 1
        return Ran(code=Code.MODEL_FAILED, text=None, run=None)


@pytest.mark.timeout(180)
async def test_generations_in_flight_are_cut_in_time(broker_config: BrokerConfig, topology: Topology) -> None:
    """Thirty stops of a grant that is being generated under: from the append of the event to the sealed outcome."""
    log, model, took_s = MemoryLog(), EndlessModel(), []
    async with Broker(broker_config) as broker:
        await broker.create_topics(topology.topics)
        tail = PolicyTail(broker, topic=topology.policy, state=policy_log(domain=DOMAIN))
        await broker.append(topology.policy, 0, [Unsent(key=None, value=codec.encode(root_event()))])
        await tail.start(timeout_s=20)
        put_decisions(log, [True] * ROUNDS)
        each = lane(log, model, stopped=tail.stopped, window_size=ROUNDS)  # type: ignore[arg-type]
        await each.recover()
        await each.advance(log.partitions[(TOPICS["enforcer"], 0)])
        for number in range(ROUNDS):
            async with asyncio.timeout(20):
                await until(lambda left=ROUNDS - number: model.running == left)  # type: ignore[misc]
                started_s = time.monotonic()
                event = stops(Kind.STOP, number + 1, Stop(scope=Scope.GRANT, name=f"d1-0-{number}"))
                await broker.append(topology.policy, 0, [Unsent(key=None, value=codec.encode(event))])
                await until(lambda done=number + 1: len(generations(log)) == done)  # type: ignore[misc]
                took_s.append(time.monotonic() - started_s)
        await each.close()
        await tail.stop()
    assert [made.code for made in generations(log)] == [Code.STOPPED] * ROUNDS
    print(f"stop to outcome: p50 {sorted(took_s)[ROUNDS // 2] * 1000:.0f} ms, max {max(took_s) * 1000:.0f} ms")
    assert max(took_s) < LIMIT_S
