"""The texts that may come out, or none such, go in; before each token the mask of those allowed comes out.

The only place that says which token may be drawn. Masks are AND-ed; the graph refuses to run without one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from numpy.typing import NDArray

from sluicegate.model_runner.tokenizer import Tokenizer

CHOICES_MAX = 1024
CHOICE_CHARACTERS_MAX = 4096


class Constraint:
    """What may be drawn next in one generation: ask `mask`, draw, `take` the token, until `finished`."""

    def __init__(self, base: NDArray[np.bool_], matcher: LLMatcher | None, end_ids: frozenset[int]) -> None:
        self._base = base
        self._matcher = matcher
        self._end_ids = sorted(end_ids)
        self._bits = allocate_token_bitmask(1, base.size)

    def mask(self) -> NDArray[np.bool_]:
        """Return which tokens may be drawn now, bool [vocabulary]; all false when nothing fits any more."""
        if self._matcher is None:
            return self._base
        # An error, here or in an earlier `take`, leaves nothing allowed: the grammar can no longer vouch for the text.
        self._bits.fill(0)
        fill_next_token_bitmask(self._matcher, self._bits)
        if self._matcher.is_error():
            return np.zeros_like(self._base)
        grammar = np.unpackbits(self._bits.view(np.uint8), bitorder="little")[: self._base.size].astype(np.bool_)
        allowed: NDArray[np.bool_] = self._base & grammar
        if not self._matcher.is_accepting():
            allowed[self._end_ids] = False
        return allowed

    def take(self, token: int) -> None:
        """Go on behind `token`; one that the grammar does not know makes every later mask empty."""
        if self._matcher is not None:
            self._matcher.consume_token(token)

    def finished(self) -> bool:
        """Say whether a choice is complete and nothing but the end could follow."""
        if self._matcher is None or not self._matcher.is_accepting():
            return False
        return not np.delete(self.mask(), self._end_ids).any()


class _Vocabulary:
    """The vocabulary as llguidance asks for it. Its own reading of a `tokenizer.json` takes control tokens spelled
    out in a text for the tokens themselves; through this one they stay text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.end_ids)
        self.bos_token_id = None
        self.tokens = [text or f"<control {token}>".encode() for token, text in enumerate(tokenizer.token_bytes)]
        self.special_token_ids = sorted(tokenizer.control_ids)

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode())


class Constrainer:
    """Makes a `Constraint` a generation; holds the vocabulary in the form that llguidance wants."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = LLTokenizer(
            TokenizerWrapper(_Vocabulary(tokenizer)),
            n_vocab=tokenizer.size,
            eos_token=sorted(tokenizer.end_ids),
            slices=[],
        )
        # A model may end its turn, and may not open one or speak any other control token.
        self._base = np.ones(tokenizer.size, dtype=np.bool_)
        self._base[sorted(tokenizer.control_ids - tokenizer.end_ids)] = False
        self._base.setflags(write=False)

    def start(self, choices: Sequence[str] | None) -> Constraint:
        """Begin a generation whose whole text must be one of `choices`, or is free when that is None.

        No choice at all is a constraint that allows nothing.

        Raises:
            TextRefused: a choice holds a byte that has no token.
            ValueError: more than `CHOICES_MAX` choices or a choice of more than `CHOICE_CHARACTERS_MAX` characters:
                bundles are checked when they are loaded, so this is a bug.
        """
        if choices is None:
            return Constraint(self._base, None, self._tokenizer.end_ids)
        if len(choices) > CHOICES_MAX or any(len(choice) > CHOICE_CHARACTERS_MAX for choice in choices):
            raise ValueError(f"at most {CHOICES_MAX} choices of {CHOICE_CHARACTERS_MAX} characters are possible")
        if not choices:
            return Constraint(np.zeros_like(self._base), None, self._tokenizer.end_ids)
        for choice in choices:
            self._tokenizer.encode(choice)
        # Lark reads JSON's escapes, and wants one for the delete character that JSON leaves as it is.
        alternatives = " | ".join(
            json.dumps(choice, ensure_ascii=False).replace("\x7f", r"\u007f") for choice in choices
        )
        matcher = LLMatcher(self._vocabulary, LLMatcher.grammar_from_lark(f"start: {alternatives}"), log_level=0)
        if matcher.is_error():
            raise ValueError("the choices do not make a grammar")
        return Constraint(self._base, matcher, self._tokenizer.end_ids)
