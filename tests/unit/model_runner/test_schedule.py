"""The schedule without a model: nobody starves, memory and call sizes are kept, rows stay compact, turns are fair."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.model_runner.schedule import CHUNK_TOKENS, Ask, Schedule, chunk_end

SLOTS, MEMORY, CALL = 4, 2000, 512


def ask(number: int, principal: str = "p", prompt: int = 10, answer: int = 5) -> Ask:
    return Ask(number=number, principal=principal, prompt_tokens=prompt, tokens_max=prompt + answer)


def schedule(slots: int = SLOTS, memory: int = MEMORY, waiting: int = 1000) -> Schedule:
    return Schedule(slots=slots, memory_tokens=memory, waiting_max=waiting, fill_tokens_max=CALL)


class House:
    """Runs a schedule as the engine would, and holds beside it what really stands in each row."""

    def __init__(self, each: Schedule) -> None:
        self.schedule = each
        self.rows: list[int | None] = [None] * SLOTS
        self.read: dict[int, int] = {}
        self.left: dict[int, int] = {}
        self.started: list[int] = []
        self.done: list[int] = []

    def release(self, number: int) -> None:
        before = self.schedule.rows
        for move in self.schedule.release(number):
            self.rows[move.target] = self.rows[move.source]
        for row in range(len(self.schedule.rows), len(before)):
            self.rows[row] = None
        self.check()

    def check(self) -> None:
        each = self.schedule
        assert [ask.number for ask in each.rows] == [number for number in self.rows if number is not None]
        assert len(each.rows) - each.decoding in (0, 1)
        assert sum(ask.tokens_max for ask in each.rows) <= each.held_tokens <= MEMORY

    def turn(self) -> None:
        fill = self.schedule.next_fill()
        if fill is not None:
            for place, ask in enumerate(fill.asks):
                if fill.start == 0:
                    self.started.append(ask.number)
                    self.rows[fill.row + place] = ask.number
                    self.left[ask.number] = ask.tokens_max - ask.prompt_tokens
                assert self.rows[fill.row + place] == ask.number
                assert self.read.get(ask.number, 0) == fill.start
                self.read[ask.number] = min(ask.prompt_tokens, fill.end)
                assert self.read[ask.number] - fill.start >= 2
            assert len(fill.asks) == 1 or fill.is_last
            assert len(fill.asks) * (fill.end - fill.start) <= CALL
            assert fill.end - fill.start <= CHUNK_TOKENS
            self.check()
        for ask in list(self.schedule.rows[: self.schedule.decoding]):
            assert self.read[ask.number] == ask.prompt_tokens
            self.left[ask.number] -= 1
            if not self.left[ask.number]:
                self.done.append(ask.number)
                self.release(ask.number)


ASKS = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(2, 1200), st.integers(1, 40), st.integers(0, 6)), max_size=25
)


@given(asks=ASKS, data=st.data())
def test_all_that_is_asked_is_done_within_the_bounds(
    asks: list[tuple[str, int, int, int]], data: st.DataObject
) -> None:
    """Whatever arrives when, and whatever is taken back in between."""
    house = House(schedule())
    dropped = set()
    for number, (principal, prompt, answer, turns) in enumerate(asks):
        assert house.schedule.add(ask(number, principal, prompt, answer))
        for _ in range(turns):
            house.turn()
        open_ = sorted(set(range(number + 1)) - set(house.done) - dropped)
        if open_ and data.draw(st.integers(0, 4)) == 0:
            gone = data.draw(st.sampled_from(open_))
            dropped.add(gone)
            house.release(gone)
    # Each turn reads a chunk or gives every row a token: the sum of both bounds how many there can be.
    for _ in range(sum(prompt // CHUNK_TOKENS + 2 + answer for _, prompt, answer, _ in asks)):
        house.turn()
    assert house.schedule.is_idle
    assert set(house.done) == set(range(len(asks))) - dropped
    assert house.schedule.held_tokens == 0


def _until_started(house: House, number: int, newcomers: Iterable[Ask]) -> int:
    for ask in newcomers:
        if number in house.started:
            return len(house.started)
        house.schedule.add(ask)
        house.turn()
    pytest.fail("it was never started")


@pytest.mark.parametrize("prompt", [2, 300, 1900])
def test_newcomers_without_end_starve_nobody(prompt: int) -> None:
    """Each newcomer is a principal that never had a turn; the one that waits has used 600 tokens already. Admissions
    pay that debt, and whoever was queued by then goes first.
    """
    house = House(schedule(waiting=50))
    house.schedule.add(ask(0, "old", 580, 20))
    house.turn()
    house.schedule.add(ask(1, "old", prompt, 20))
    newcomers = (ask(number, f"new{number}", 100, 10) for number in range(2, 3000))
    assert _until_started(house, 1, newcomers) <= 600 + 50 + SLOTS


def test_principals_share_tokens_and_not_requests() -> None:
    house = House(schedule(slots=1))
    for number in range(300):
        house.schedule.add(ask(number, "many", 10, 10) if number % 3 else ask(number, "few", 30, 10))
    while len(house.started) < 150:
        house.turn()
    used = {"many": 0, "few": 0}
    for number in house.started:
        used["many" if number % 3 else "few"] += 20 if number % 3 else 40
    assert abs(used["many"] - used["few"]) <= 80


def test_one_that_asked_first_for_a_hundred_lets_the_second_in_at_once() -> None:
    house = House(schedule(slots=1))
    for number in range(100):
        house.schedule.add(ask(number, "first"))
    house.turn()
    house.schedule.add(ask(100, "second"))
    while 100 not in house.started:
        house.turn()
    assert house.started.index(100) <= 2


def test_nobody_overtakes_the_one_that_waits_for_memory() -> None:
    house = House(schedule(memory=2000))
    house.schedule.add(ask(0, "a", 1000, 30))
    for _ in range(5):
        house.turn()
    house.schedule.add(ask(1, "b", 1500, 30))
    house.turn()
    house.schedule.add(ask(2, "c", 10, 5))
    while house.schedule.decoding:
        house.turn()
        assert house.started == [0] or house.started[:2] == [0, 1]
    for _ in range(20):
        house.turn()
    assert house.started == [0, 1, 2]


def test_a_full_queue_says_so_and_what_could_never_run_is_a_bug() -> None:
    each = schedule(waiting=2)
    assert [each.add(ask(number)) for number in range(3)] == [True, True, False]
    for wrong in (ask(9, prompt=1), ask(9, answer=0), ask(9, prompt=MEMORY)):
        with pytest.raises(ValueError, match="prompt of at least 2 tokens"):
            each.add(wrong)
    with pytest.raises(KeyError):
        each.release(7)


@given(tokens=st.integers(2, 5000))
def test_chunks_cover_the_prompt_and_none_is_one_token(tokens: int) -> None:
    start, sizes = 0, []
    while start < tokens:
        end = chunk_end(tokens, start)
        sizes.append(end - start)
        start = end
    assert start == tokens
    assert all(2 <= size <= CHUNK_TOKENS for size in sizes)


def test_short_prompts_are_read_in_one_call_and_a_long_one_alone() -> None:
    each = schedule()
    for number, prompt in enumerate((10, 200, 30, 900)):
        each.add(ask(number, f"p{number}", prompt))
    fill = each.next_fill()
    assert fill is not None
    assert [ask.number for ask in fill.asks] == [0, 1]  # a third would pad 30 to 200: more than a call reads
    assert each.decoding == 2
    third = each.next_fill()
    assert third is not None
    assert [ask.number for ask in third.asks] == [2]
