"""Constraints: exactly the given choices can be spoken, whatever way they are cut into tokens."""

import ctypes
from typing import Any

import pytest
from fixtures_model import tiny_settings
from hypothesis import given
from hypothesis import strategies as st

from sluicegate.model_runner.constrain import CHOICES_MAX, Constrainer, Constraint
from sluicegate.model_runner.errors import TextRefused
from sluicegate.model_runner.tokenizer import Tokenizer

TOKENIZER = Tokenizer(tiny_settings())
CONSTRAINER = Constrainer(TOKENIZER)
TEXT = st.text(st.sampled_from('abpos neg12"\\|/<>%\n\t\x7fé😀'), min_size=1, max_size=6)


def spoken(choices: tuple[str, ...]) -> set[str]:
    """Return every text that can be spoken to its end, walking all allowed tokens."""
    texts: set[str] = set()
    paths: list[list[int]] = [[]]
    while paths:
        path = paths.pop()
        constraint = CONSTRAINER.start(choices)
        for token in path:
            constraint.take(token)
        allowed = {int(token) for token in constraint.mask().nonzero()[0]}
        assert allowed & TOKENIZER.control_ids <= TOKENIZER.end_ids
        if allowed & TOKENIZER.end_ids:
            texts.add(TOKENIZER.decode(path))
        onward = allowed - TOKENIZER.end_ids
        assert constraint.finished() == (not onward)
        paths += [[*path, token] for token in onward]
    return texts


@given(choices=st.lists(TEXT, min_size=1, max_size=4, unique=True))
def test_exactly_the_choices_can_be_spoken(choices: list[str]) -> None:
    assert spoken(tuple(choices)) == set(choices)


@pytest.mark.parametrize(
    "choices",
    [
        ("positive", "negative"),
        ("pos", "positive"),
        ("<|im_end|>",),
        ("<|im_end|>", "<|im_start|>"),
        ("<control 1>", "start: /.*/"),
        ("%json {}", '"', "\\", "\\n", "\n", "a | b"),
        ("",),
    ],
)
def test_a_choice_is_text_and_not_a_grammar(choices: tuple[str, ...]) -> None:
    assert spoken(choices) == set(choices)


class _Generous:
    """A matcher that allows everything; `accepting` says whether a text may end here."""

    def __init__(self, *, accepting: bool) -> None:
        self.accepting = accepting

    def is_error(self) -> bool:
        return False

    def is_accepting(self) -> bool:
        return self.accepting

    def unsafe_compute_mask_ptr(self, pointer: int, size: int) -> None:
        ctypes.memset(pointer, 0xFF, size)


@pytest.mark.parametrize("accepting", [True, False])
def test_a_grammar_can_neither_allow_a_control_token_nor_an_early_end(accepting: bool) -> None:
    base = CONSTRAINER.start(None).mask()
    matcher: Any = _Generous(accepting=accepting)
    allowed = set(Constraint(base, matcher, TOKENIZER.end_ids).mask().nonzero()[0].tolist())
    assert allowed & TOKENIZER.control_ids == (TOKENIZER.end_ids if accepting else set())
    assert len(allowed) > 200


def test_a_token_that_does_not_fit_blocks_what_follows() -> None:
    constraint = CONSTRAINER.start(("positive", "negative"))
    assert constraint.mask().any()
    constraint.take(TOKENIZER.encode("x")[0])
    assert not constraint.mask().any()
    assert not constraint.finished()


def test_no_choice_allows_nothing_and_no_constraint_allows_text_and_ends() -> None:
    assert not CONSTRAINER.start(()).mask().any()
    free = CONSTRAINER.start(None).mask()
    barred = {token for token in range(TOKENIZER.size) if not free[token]}
    assert barred == TOKENIZER.control_ids - TOKENIZER.end_ids
    assert barred
    assert not CONSTRAINER.start(None).finished()


def test_a_choice_that_cannot_be_spoken_is_refused() -> None:
    with pytest.raises(TextRefused, match="0x04"):
        CONSTRAINER.start(("fine", "blue\x04fin"))


def test_too_many_or_too_long_choices_are_refused() -> None:
    CONSTRAINER.start(tuple(str(number) for number in range(CHOICES_MAX)))
    with pytest.raises(ValueError, match="choices"):
        CONSTRAINER.start(tuple(str(number) for number in range(CHOICES_MAX + 1)))
    with pytest.raises(ValueError, match="choices"):
        CONSTRAINER.start(("x" * 5000,))
