"""Non-interference: a job's tokens are the same alone or among 31 others, in any order, slot and arrival."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sluicegate.model_runner import generation
from sluicegate.model_runner.draw import draw_token
from sluicegate.model_runner.engine import Capacity, Engine
from sluicegate.model_runner.ports import Job, Message, Outcome

WINDOW = 256


@pytest.fixture(scope="module")
def engine(tiny_dir: Path) -> Engine:
    return Engine.load(tiny_dir, threads=1, window_tokens=WINDOW, capacity=Capacity(slots=12))


def mixed_jobs(count: int, *, words: int = 40) -> list[Job]:
    """Return jobs of every kind mixed: lengths, greedy and drawn, choices, stop strings, budgets, principals."""
    dice = random.Random(count)
    jobs = []
    for number in range(count):
        content = " ".join(dice.choice(("heron", "brake", "is", "12")) for _ in range(dice.randrange(1, words)))
        job = Job(
            messages=(Message(role="user", content=content[: WINDOW - 60]),),
            max_tokens=dice.randrange(1, 24),
            seed=dice.randrange(2**32),
            temperature=dice.choice((0.0, 0.8, 1.5)),
            top_p=dice.choice((1.0, 0.9)),
            top_k=dice.choice((0, 20)),
            principal=f"p{number % 5}",
        )
        match number % 4:
            case 1:
                job = replace(job, choices=("positive", "negative", "neither of the two"))
            case 2:
                job = replace(job, stop=("e", "\n"))
        jobs.append(job)
    return jobs


def never() -> bool:
    return False


def together(engine: Engine, jobs: Sequence[Job], order: Sequence[int], pause_s: float = 0.0) -> list[Outcome]:
    """Return the outcomes in the order of `jobs`, submitted in `order` with a pause between any two."""
    futures = {}
    for place in order:
        futures[place] = engine.submit(jobs[place], never)
        time.sleep(pause_s)
    return [futures[place].result() for place in range(len(jobs))]


JOBS = mixed_jobs(32)


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list[Outcome]:
    return [engine.generate(job, never) for job in JOBS]


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(len(JOBS))), pause_s=st.sampled_from([0.0, 0.0005]))
def test_a_job_is_deaf_to_its_neighbours(
    engine: Engine, alone: list[Outcome], order: list[int], pause_s: float
) -> None:
    assert together(engine, JOBS, order, pause_s) == alone


def test_the_answers_could_have_differed(alone: list[Outcome]) -> None:
    assert len({outcome.text for outcome in alone}) > len(JOBS) // 2
    assert {outcome.finish for outcome in alone} == {"stop", "length"}
    assert sum(outcome.output_tokens > 4 for outcome in alone) > 10


def test_neighbours_that_are_cancelled_leave_no_trace(engine: Engine, alone: list[Outcome]) -> None:
    """Rows close in the middle of the batch while others go on: what moved into the gap is whole."""
    left = dict.fromkeys(range(0, len(JOBS), 2), 3)

    def tires(place: int) -> Callable[[], bool]:
        def cancelled() -> bool:
            left[place] -= 1
            return left[place] < 0

        return cancelled

    futures = [engine.submit(job, tires(place) if place % 2 == 0 else never) for place, job in enumerate(JOBS)]
    found = [future.result() for future in futures]
    assert [found[place] for place in range(1, len(JOBS), 2)] == alone[1::2]
    assert any(outcome.finish == "cancelled" for outcome in found)


def test_a_long_prompt_read_in_chunks_is_as_read_alone(engine: Engine, tiny_dir: Path) -> None:
    """Chunks of 256 tokens need a longer window than the tiny model's: cut them smaller for all, alone and not."""
    jobs = [replace(job, messages=(Message(role="user", content="12 " * (5 * place)),), max_tokens=9)
            for place, job in enumerate(JOBS[:12], start=1)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        whole = [engine.generate(job, never) for job in jobs]
        patch.setattr("sluicegate.model_runner.schedule.CHUNK_TOKENS", 32)
        assert [engine.generate(job, never) for job in jobs] == whole
        assert together(engine, jobs, range(len(jobs))) == whole


@pytest.mark.parametrize("fault", ["a draw by what was drawn before", "a row that is not moved", "one row too far"])
def test_an_engine_that_listens_to_its_neighbours_is_found(
    engine: Engine, alone: list[Outcome], fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: the same comparison, over engines broken on purpose."""
    draws = 0

    def by_count(*args: Any, **named: Any) -> int:
        nonlocal draws
        draws += 1
        return draw_token(*args, **named | {"position": draws})

    memory = engine._memory
    addresses = memory.addresses
    match fault:
        case "a draw by what was drawn before":
            monkeypatch.setattr(generation, "draw_token", by_count)
        case "a row that is not moved":
            monkeypatch.setattr(memory, "move", lambda source, target, tokens: None)
        case "one row too far":
            monkeypatch.setattr(memory, "addresses", lambda row: addresses(max(0, row - 1)))
    assert together(engine, JOBS, range(len(JOBS))) != alone
