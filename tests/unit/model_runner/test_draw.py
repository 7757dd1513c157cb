"""Draws: fixed by seed and position, spread as the chances say, and never outside the candidates."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.model_runner.draw import draw_token, uniform

IDS = np.array([40, 7, 99, 3], dtype=np.int64)
LOGITS = np.log(np.array([0.5, 0.25, 0.15, 0.1])).astype(np.float32)
FREE = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}


def _draws(count: int, *, seed: int = 1, temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0) -> list[int]:
    return [
        draw_token(IDS, LOGITS, seed=seed, position=position, temperature=temperature, top_p=top_p, top_k=top_k)
        for position in range(count)
    ]


def test_temperature_zero_takes_the_best_whatever_the_seed() -> None:
    assert {token for seed in range(50) for token in _draws(4, seed=seed, temperature=0.0)} == {40}


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    assert _draws(200, seed=5) == _draws(200, seed=5)
    assert _draws(200, seed=5) != _draws(200, seed=6)


def test_draws_are_spread_as_the_chances_say() -> None:
    drawn = _draws(20_000)
    for token, chance in ((40, 0.5), (7, 0.25), (99, 0.15), (3, 0.1)):
        # Five standard deviations: a wrong distribution is far outside, a right one never.
        assert abs(drawn.count(token) / 20_000 - chance) < 5 * math.sqrt(chance * (1 - chance) / 20_000)


def test_top_k_and_top_p_cut_the_tail() -> None:
    assert set(_draws(2_000)) == {40, 7, 99, 3}
    assert set(_draws(2_000, top_k=2)) == {40, 7}
    assert set(_draws(2_000, top_k=1)) == {40}
    assert set(_draws(2_000, top_p=0.74)) == {40, 7}
    assert set(_draws(2_000, top_p=0.76)) == {40, 7, 99}
    assert set(_draws(2_000, top_p=0.01)) == {40}


def test_a_colder_draw_takes_the_best_more_often() -> None:
    counts = [_draws(3_000, temperature=temperature).count(40) for temperature in (2.0, 1.0, 0.5, 0.1)]
    assert all(warm < cold for warm, cold in pairwise(counts))


@pytest.mark.parametrize("shift", [-3000.0, 3000.0])
def test_only_the_differences_of_logits_count(shift: float) -> None:
    near = (LOGITS * 4).round() / 4  # steps that fp32 still holds at 3000
    for position in range(300):
        drawn = [
            draw_token(IDS, logits.astype(np.float32), seed=1, position=position, **FREE)  # type: ignore[arg-type]
            for logits in (near, near + shift)
        ]
        assert drawn[0] == drawn[1]


@given(seed=st.integers(-(2**63), 2**64), position=st.integers(0, 2**31))
def test_the_uniform_number_is_in_range_and_fixed(seed: int, position: int) -> None:
    assert 0.0 <= uniform(seed, position) < 1.0
    assert uniform(seed, position) == uniform(seed, position)


@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=64),
    seed=st.integers(0, 2**63),
    temperature=st.floats(1e-6, 100.0),
    top_p=st.floats(1e-6, 1.0),
    top_k=st.integers(0, 100),
)
def test_every_draw_is_one_of_the_candidates(
    logits: list[float], seed: int, temperature: float, top_p: float, top_k: int
) -> None:
    ordered = np.array(sorted(logits, reverse=True), dtype=np.float32)
    ids = np.arange(len(ordered), dtype=np.int64) + 1000
    token = draw_token(ids, ordered, seed=seed, position=0, temperature=temperature, top_p=top_p, top_k=top_k)
    assert token in ids[: top_k or None]
