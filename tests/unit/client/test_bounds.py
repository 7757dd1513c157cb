"""Forgers, other services, cancelled calls, full houses, silence and lost brokers: what the client makes of them."""

import asyncio
from dataclasses import replace

import pytest
from client_house import REPLIES, TOPOLOGY, House, asked, quiet
from echo_gate import ROGUE, EchoGate

from sluicegate.client import BROKER_ACL, NotAnswered, TooManyWaiting
from sluicegate.schemas import codec
from sluicegate.schemas.errors import ContinuityError, Unavailable
from sluicegate.schemas.events import ReleaseMade
from sluicegate.schemas.ids import EventKey
from sluicegate.schemas.records import Unsent
from sluicegate.streams.topology import Topology


def tampered(copy: Unsent) -> Unsent:
    release = codec.decode(copy.value, ReleaseMade)
    return replace(copy, value=codec.encode(replace(release, text="forged")))


async def test_forged_copies_reach_nobody(house: House) -> None:
    """Positive control: the genuine copy of the same release, after them."""
    house.held = []
    async with house.client() as client, house.client(trust=BROKER_ACL) as credulous:
        call = asyncio.create_task(client.ask(**asked("true", request_id="a")))
        await house.holds(1)
        topic, partition, genuine = house.held[0]
        release = codec.decode(genuine.value, ReleaseMade)
        loot = replace(release, text="forged")
        forgeries = [
            tampered(genuine),
            house.gate.seal(loot, partition, private=ROGUE),
            Unsent(key=None, value=codec.encode(loot)),
            Unsent(key=None, value=b"no release"),
            replace(genuine, headers=(*genuine.headers, *genuine.headers)),
            replace(genuine, headers=(("sg-seal", b"\xc3\x01 no seal"),)),
            EchoGate(TOPOLOGY, env="prod").seal(loot, partition),
            EchoGate(TOPOLOGY, epoch=2).seal(loot, partition),
            EchoGate(Topology(tenant="other", partitions=2)).seal(loot, partition),
        ]
        for forgery in forgeries:
            house.broker.put(topic, partition, forgery)
        house.broker.put(topic, 1 - partition, genuine)
        await quiet()
        assert not call.done()
        house.deliver()
        assert (await call).text == "true"
        counts = client.counts
        assert (counts.unreadable, counts.unverified, counts.genuine) == (1, len(forgeries), 1)
        assert credulous.counts.unverified == 0


async def test_who_trusts_the_broker_believes_what_stands_there(house: House) -> None:
    """The control of the test above: the same forgery counts where no seal is asked for."""
    house.held = []
    async with house.client(trust=BROKER_ACL) as client:
        call = asyncio.create_task(client.ask(**asked("true")))
        await house.holds(1)
        topic, partition, genuine = house.held[0]
        house.broker.put(topic, partition, tampered(genuine))
        assert (await call).text == "forged"


async def test_a_second_service_never_sees_the_first_ones_answers(house: House) -> None:
    """Even where a rogue copies the genuine ones into its topic."""
    async with house.client() as first, house.client(service="crm-app") as second:
        mine = await first.ask(**asked("mine", request_id="same"))
        for partition in range(TOPOLOGY.partitions):
            for record in house.broker.logs.get((REPLIES, partition), []):
                copy = Unsent(key=record.key, value=record.value, headers=record.headers)
                house.broker.put(TOPOLOGY.reply("crm-app"), partition, copy)
        with pytest.raises(NotAnswered):
            await second.find("same", timeout_s=0.05)
        with pytest.raises(NotAnswered):
            await second.find("same", place=mine.place, timeout_s=0.05)
        assert second.counts.foreign > 0
        assert (await second.ask(**asked("yours", request_id="same"))).text == "yours"
        assert (await first.find("same")).text == "mine"


async def test_two_clients_of_one_service_get_their_own(house: House) -> None:
    async with house.client() as one, house.client() as other:
        answers = await asyncio.gather(
            *(client.ask(**asked(f"{name}{n}")) for n in range(20) for name, client in (("a", one), ("b", other)))
        )
    assert [each.text for each in answers] == [f"{name}{n}" for n in range(20) for name in "ab"]
    assert one.counts.genuine == other.counts.genuine == 40


async def test_repeated_copies_are_told_once(house: House) -> None:
    async with house.client() as client:
        answer = await client.ask(**asked("x", request_id="a"))
        [record] = [each for log in house.broker.logs.values() for each in log if each.topic == REPLIES]
        for _ in range(3):
            copy = Unsent(key=record.key, value=record.value, headers=record.headers)
            house.broker.put(REPLIES, record.partition, copy)
        await quiet()
        assert (client.counts.genuine, client.counts.repeated) == (1, 3)
        assert (await client.find("a")).release == answer.release


async def test_cancelled_calls_leave_nothing_behind(house: House) -> None:
    house.held = []
    async with house.client(waiting_max=3) as client:
        for _ in range(4):
            calls = [asyncio.create_task(client.ask(**asked(f"q{n}"))) for n in range(3)]
            await quiet()
            assert client.waiting == 3
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert client.waiting == len(client._waiting) == len(client._waiting._by_place) == 0
        house.broker.restart(down=True)
        sending = asyncio.create_task(client.ask(**asked("never lands")))
        await quiet()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert not client._waiting._sending
        house.broker.restart(down=False)
        house.deliver()
        await quiet()
        assert (await client.ask(**asked("still here"))).text == "still here"


async def test_waiters_are_bounded(house: House) -> None:
    house.held = []
    async with house.client(waiting_max=2) as waits, house.client(waiting_max=2, when_full="refuse") as refuses:
        calls = [asyncio.create_task(client.ask(**asked(f"q{n}"))) for n in range(2) for client in (waits, refuses)]
        await quiet()
        with pytest.raises(TooManyWaiting, match="2 requests wait already"):
            await refuses.ask(**asked("third"))
        with pytest.raises(TooManyWaiting):
            await waits.ask(**asked("third"), timeout_s=0.02)
        third = asyncio.create_task(waits.ask(**asked("third")))
        await quiet()
        assert house.gate.decided == 4
        house.deliver()
        assert (await third).text == "third"
        await asyncio.gather(*calls)


async def test_silence_ends_in_time_and_says_how_to_look_later(house: House) -> None:
    house.held = []
    async with house.client() as client:
        with pytest.raises(
            NotAnswered, match=r"`a` within 0.05 s \(it was sent\); look for it later with `find`"
        ) as late:
            await client.ask(**asked("slow", request_id="a"), timeout_s=0.05)
        assert isinstance(late.value.place, EventKey)
        forgotten = await client.submit(**asked("x"), timeout_s=0.05)
        await asyncio.sleep(0.1)
        assert client.waiting == 0, "whoever submits and never waits holds no slot"
        with pytest.raises(NotAnswered):
            await client.wait(forgotten)
        house.deliver()
        assert (await client.find("a")).text == "slow"
        house.broker.restart(down=True)
        with pytest.raises(NotAnswered, match="not known") as unsent:
            await client.ask(**asked("x"), timeout_s=0.05)
        assert unsent.value.place is None


async def test_50_waiters_outlive_a_restart_of_the_broker(house: House) -> None:
    house.held = []
    async with house.client() as client:
        calls = [asyncio.create_task(client.ask(**asked(f"q{n}"))) for n in range(50)]
        await house.holds(50)
        house.broker.restart(down=True)
        late = asyncio.create_task(client.ask(**asked("during")))
        await asyncio.sleep(0.02)
        house.broker.restart(down=False)
        house.deliver()
        assert [each.text for each in await asyncio.gather(*calls)] == [f"q{n}" for n in range(50)]
        assert (await late).text == "during"


async def test_a_cut_log_is_told_to_everybody(house: House) -> None:
    house.held = []
    async with house.client() as client:
        calls = [asyncio.create_task(client.ask(**asked(f"q{n}"))) for n in range(3)]
        await quiet()
        house.broker.cut = True
        house.broker.restart(down=False)
        for found in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(found, ContinuityError)
        with pytest.raises(ContinuityError):
            await client.ask(**asked("later"))


async def test_a_closed_client_tells_who_still_waits(house: House) -> None:
    house.held = []
    async with house.client() as client:
        call = asyncio.create_task(client.ask(**asked("x")))
        await quiet()
    with pytest.raises(Unavailable, match="closed"):
        await call
    with pytest.raises(Unavailable, match="closed"):
        await client.ask(**asked("x"))
