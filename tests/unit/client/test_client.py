"""One terminal release a request, its own and no other's, whatever becomes of sends, answers and clients."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from client_house import LIMIT_S, TOPOLOGY, House, asked, config, quiet
from memory_wire import Fault, MemoryWire

from sluicegate.client import Client, NotAnswered, NotReleased
from sluicegate.client import client as client_module
from sluicegate.enforcer.partition import partition_of
from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome


async def test_a_question_gets_its_answer(house: House) -> None:
    async with house.client() as client:
        answer = await client.ask(**asked("hello", request_id="a"))
        assert (answer.outcome, answer.code, answer.text) == (ReleaseOutcome.RELEASED, Code.OK, "hello")
        assert answer.require() is answer
        assert answer.decision_id == f"d1-{answer.place.partition}-{answer.place.offset}"
        assert answer.duplicate_of is None


@pytest.mark.parametrize("wire_format", ["avro", "json"])
async def test_both_formats_say_the_same(house: House, wire_format: str) -> None:
    async with house.client(wire_format=wire_format) as client:
        assert (await client.ask(**asked("hello"))).text == "hello"
    [record] = [each for log in house.broker.logs.values() for each in log if each.topic == TOPOLOGY.requests]
    assert record.header("content-type") == (b"application/json" if wire_format == "json" else None)


async def test_a_refusal_is_an_answer_of_its_own_kind(house: House) -> None:
    house.gate.reason_to_refuse = lambda record: Code.POLICY_NOT_READY
    async with house.client() as client:
        answer = await client.ask(**asked(request_id="a"))
        assert (answer.outcome, answer.retryable, answer.text) == (ReleaseOutcome.REFUSED, True, None)
        assert answer.retry_after_ms
        with pytest.raises(NotReleased, match=r"`a` was not answered: REFUSED, POLICY_NOT_READY") as raised:
            answer.require()
        assert raised.value.answer is answer


async def test_the_deadline_travels_with_the_request(house: House) -> None:
    async with house.client() as client:
        await client.ask(**asked())
        await client.ask(**asked(deadline_ms=77))
    requests = [each for log in house.broker.logs.values() for each in log if each.topic == TOPOLOGY.requests]
    found = [codec.decode(each.value, client_module.RequestSubmitted).deadline_ms for each in requests]
    assert found == [1_800_000_000_000 + int(LIMIT_S * 800), 77]


async def test_200_at_once_get_their_own_in_any_order(house: House) -> None:
    house.held = []
    async with house.client() as client:
        calls = [
            asyncio.create_task(client.ask(**asked(f"q{number}", principal=f"p{number}"))) for number in range(200)
        ]
        await house.holds(200)
        house.deliver(order=lambda held: held[::-1])
        answers = await asyncio.gather(*calls)
    assert [answer.text for answer in answers] == [f"q{number}" for number in range(200)]
    assert {answer.place.partition for answer in answers} == {0, 1}


async def test_an_answer_before_the_acknowledgement_is_kept(house: House) -> None:
    """The memory broker answers inside the append; with a refusal there is no request id to know it by."""
    async with house.client() as client:
        answer = await client.ask(**asked("early"))
        assert answer.text == "early"
        house.broker.on_append = house.refuse
        answer = await client.ask(**asked("unproved", request_id="b"))
        assert (answer.code, answer.decision_id, answer.request_id) == (Code.PROOF_MISSING, None, "b")
        assert not client._waiting._refusals
        assert not client._waiting._sending


@pytest.mark.parametrize(
    ("faults", "sends", "repeats"),
    [
        ([Fault.UNACKNOWLEDGED], 2, True),
        ([Fault.LOST, Fault.LOST], 1, False),
        ([Fault.LOST, Fault.UNACKNOWLEDGED, Fault.LOST, Fault.UNACKNOWLEDGED], 3, True),
        ([Fault.DOUBLED], 3, True),
    ],
    ids=["acknowledgement lost", "request lost", "both", "doubled by the broker"],
)
async def test_a_send_of_unknown_outcome_is_sent_again(
    house: House, faults: list[Fault], sends: int, repeats: bool
) -> None:
    house.broker.faults.extend(faults)
    async with house.client() as client:
        answer = await client.ask(**asked("once", request_id="a"))
    assert answer.text == "once"
    assert house.gate.decided == sends
    assert len([each for each in house.releases("a") if each.code is Code.OK]) == 1
    assert answer.duplicate_of == (answer.decision_id if repeats else None)


async def test_a_repeat_resolves_to_the_first_however_they_overtake(house: House) -> None:
    house.held = []
    house.broker.faults.append(Fault.UNACKNOWLEDGED)
    async with house.client() as client:
        call = asyncio.create_task(client.ask(**asked("once")))
        await house.holds(2)
        first, second = house.held
        house.broker.put(*second)
        await quiet()
        assert not call.done()
        house.broker.put(*first)
        assert (await call).text == "once"


async def test_another_body_under_the_same_id_is_nobody_elses_answer(house: House) -> None:
    async with house.client() as one, house.client() as other:
        first = await one.ask(**asked("mine", request_id="same", deadline_ms=5))
        second = await other.ask(**asked("yours", request_id="same", deadline_ms=5))
        third = await other.ask(**asked("mine", request_id="same", deadline_ms=5))
    assert first.text == "mine"
    assert (second.code, second.text) == (Code.REQUEST_ID_REUSED, None)
    assert (third.text, third.duplicate_of) == ("mine", first.decision_id)


async def test_a_repeat_by_a_new_client_is_read_back(house: House) -> None:
    async with house.client() as client:
        first = await client.ask(**asked("once", request_id="a", deadline_ms=5))
    async with house.client() as client:
        again = await client.ask(**asked("once", request_id="a", deadline_ms=5))
    assert (again.text, again.duplicate_of, again.place) == ("once", first.decision_id, first.place)


async def test_who_died_finds_the_answer_that_came_and_the_one_that_comes(house: House) -> None:
    async with house.client() as client:
        await client.ask(**asked("before", request_id="a"))
        house.held = []
        lost = await client.submit(**asked("after", request_id="b"))
        assert lost.place is not None
    async with house.client() as client:
        assert (await client.find("a")).text == "before"
        late = asyncio.create_task(client.find("b"))
        await quiet()
        assert not late.done()
        house.deliver()
        assert (await late).text == "after"
        with pytest.raises(NotAnswered, match="`find`"):
            await client.find("never sent", timeout_s=0.05)
        with pytest.raises(NotAnswered):
            await client.find("a", since=datetime.now(UTC) + timedelta(hours=1), timeout_s=0.05)
        assert (await client.find("a", since=datetime.now(UTC) - timedelta(hours=1))).text == "before"


async def test_what_is_found_is_the_last_try(house: House) -> None:
    house.gate.reason_to_refuse = lambda record: Code.POLICY_NOT_READY
    async with house.client() as client:
        assert (await client.ask(**asked("x", request_id="a", deadline_ms=5))).retryable
        house.gate.reason_to_refuse = lambda record: None
        assert (await client.ask(**asked("x", request_id="a", deadline_ms=5))).text == "x"
        assert (await client.ask(**asked("y", request_id="a", deadline_ms=5))).code is Code.REQUEST_ID_REUSED
    async with house.client() as client:
        assert (await client.find("a")).text == "x"


async def test_with_a_place_an_id_means_one_of_two_principals(house: House) -> None:
    """Ids are told apart for each partition: the gate answered both."""
    people = {partition_of(f'User::"{name}"'.encode(), TOPOLOGY.partitions): name for name in ("a", "b", "c", "d", "e")}
    house.held = []
    async with house.client() as client:
        places = [
            (await client.submit(**asked(f"by {people[n]}", principal=people[n], request_id="same"))).place
            for n in range(TOPOLOGY.partitions)
        ]
    async with house.client() as client:
        calls = [asyncio.create_task(client.find("same", place=place)) for place in places]
        await quiet()
        first, second = house.held
        house.broker.put(*second)
        assert (await calls[1]).text == f"by {people[1]}"
        await quiet()
        assert not calls[0].done()
        house.broker.put(*first)
        assert (await calls[0]).text == f"by {people[0]}"


async def test_a_refusal_without_a_name_is_found_by_its_place(house: House) -> None:
    house.broker.on_append = house.refuse
    async with house.client() as client:
        answer = await client.ask(**asked(request_id="a"))
    async with house.client() as client:
        found = await client.find("a", place=answer.place)
        assert found.code is Code.PROOF_MISSING
        with pytest.raises(NotAnswered):
            await client.find("a", timeout_s=0.05)
        with pytest.raises(NotAnswered):
            await client.find("a", place=replace(answer.place, offset=9), timeout_s=0.05)


async def test_many_who_look_back_share_one_reading(house: House) -> None:
    async with house.client() as client:
        await asyncio.gather(*(client.ask(**asked(f"q{n}", request_id=f"r{n}")) for n in range(30)))
    wire = MemoryWire(house.broker)
    async with Client(config(), wire=wire) as client:
        found = await asyncio.gather(*(client.find(f"r{n}") for n in range(30)))
    assert [each.text for each in found] == [f"q{n}" for n in range(30)]
    assert wire.histories <= 2


async def test_arguments_that_make_no_question(house: House) -> None:
    async with house.client() as client:
        with pytest.raises(ValueError, match="either"):
            await client.ask(model="m", purpose="p")
        with pytest.raises(ValueError, match="give `principal`"):
            await client.ask(**asked(person_token="no.token.here"))
        assert client.waiting == 0
