"""Pieces of a message go in, the same pieces with public names for unreleased ones come out; the only place for it.

It reads the message as a whole in plain form (`views.fold`), so that neither a disguise nor a name cut in two by a
border between pieces gets through, and replaces in the original: what is no name is not touched.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import Final

from sluicegate.enforcer.views import View, fold
from sluicegate.enforcer.vocabulary import Match, Term, TermList
from sluicegate.schemas.errors import Problem

Key = tuple[str, str]
"""A term list and a public name in it."""
Part = tuple[str, Key | None]
"""A text, and the public name that it is, if it is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    match: Match
    alias: str
    key: Key


class Aliases:
    """Compiled term lists. Where several terms match at one place, the longest counts."""

    __slots__ = ("_any", "_terms")

    def __init__(self, lists: Sequence[TermList]) -> None:
        meanings: dict[str, _Meaning] = {}
        for terms in sorted(lists, key=lambda each: each.name):
            for term in terms.terms:
                meaning = _Meaning(match=terms.match, alias=term.alias, key=(terms.name, term.alias))
                known = meanings.get(term.plain)
                # One term in two lists: the wider way of matching counts, so that a list more never shows more.
                if known is None or _WIDTH[meaning.match] > _WIDTH[known.match]:
                    meanings[term.plain] = meaning
        self._terms: Final = [(_pattern(plain), meanings[plain]) for plain in sorted(meanings)]
        # Most messages hold no term at all: one search says so.
        self._any: Final = re.compile("|".join(pattern.pattern for pattern, _ in self._terms), re.IGNORECASE)

    def replace(self, pieces: Sequence[str]) -> tuple[tuple[str, ...], Counter[Key]]:
        """The pieces with every term replaced, and how often each public name was put in.

        A name that runs over a border goes into the piece in which it starts; a border counts as the edge of a word.
        """
        cut, counts = self.cut(pieces)
        return tuple("".join(text for text, _ in parts) for parts in cut), counts

    def cut(self, pieces: Sequence[str]) -> tuple[tuple[tuple[Part, ...], ...], Counter[Key]]:
        """The same as parts of each piece, none empty: what was left as it stands (key None), and each public name."""
        text = "".join(pieces)
        view = fold(text)
        borders = list(accumulate((len(piece) for piece in pieces), initial=0))
        edges = frozenset(borders)
        found = self._find(view, edges)
        if not found:
            return tuple(((piece, None),) if piece else () for piece in pieces), Counter()
        out: list[tuple[Part, ...]] = []
        for low, high in pairwise(borders):
            parts: list[Part] = []
            at = low
            for start, end, meaning in found:
                if end <= low or start >= high:
                    continue
                parts.append((text[at : max(start, low)], None))
                if start >= low:
                    parts.append((meaning.alias, meaning.key))
                at = min(end, high)
            parts.append((text[at:high], None))
            out.append(tuple(part for part in parts if part[0]))
        return tuple(out), Counter(meaning.key for _, _, meaning in found)

    def holds_term(self, text: str) -> bool:
        """Whether any term stands in `text`."""
        return bool(self._find(fold(text), frozenset()))

    def _find(self, view: View, edges: frozenset[int]) -> list[tuple[int, int, _Meaning]]:
        """Spans of the original to replace, sorted, none inside another."""
        if not self._terms or self._any.search(view.text) is None:
            return []
        spans = [
            (*view.original(*hit.span(1)), meaning)
            for pattern, meaning in self._terms
            for hit in pattern.finditer(view.text)
            if _counts(view, *hit.span(1), meaning.match, edges)
        ]
        spans.sort(key=lambda span: (span[0], -span[1]))
        kept: list[tuple[int, int, _Meaning]] = []
        for span in spans:
            if not kept or span[0] >= kept[-1][1]:
                kept.append(span)
            elif span[1] > kept[-1][1]:
                # Two names overlap: what is left of the second goes with the first, so that no part of it shows.
                kept[-1] = (kept[-1][0], span[1], kept[-1][2])
        return kept


_WIDTH: Final = MappingProxyType({Match.WORD: 0, Match.START: 1, Match.ANYWHERE: 2})


def _pattern(plain: str) -> re.Pattern[str]:
    # In a look-ahead, so that a term is found at every place, also where two of its places overlap.
    return re.compile("(?=(" + r"\s+".join(re.escape(word) for word in plain.split(" ")) + "))", re.IGNORECASE)


def _counts(view: View, start: int, end: int, match: Match, edges: frozenset[int]) -> bool:
    starts = match is Match.ANYWHERE or _edge(view, start, edges)
    return starts and (match is not Match.WORD or _edge(view, end, edges))


def _edge(view: View, at: int, edges: frozenset[int]) -> bool:
    """Whether a word may start or end before character `at` of the view."""
    text = view.text
    if at in (0, len(text)) or not (text[at - 1].isalnum() and text[at].isalnum()):
        return True
    before, after = view.original(at - 1, at)[1], view.original(at, at + 1)[0]
    # Something that draws nothing stands between the two, which the model reads as an edge; or another piece begins.
    return after > before or after in edges


@lru_cache(maxsize=64)
def compiled(lists: tuple[TermList, ...]) -> Aliases:
    """The aliases of these term lists, compiled once."""
    return Aliases(lists)


def clashes(lists: Sequence[TermList]) -> list[Problem]:
    """One problem for each term with two public names, and for each public name that itself holds a term."""
    problems: list[Problem] = []
    seen: dict[str, tuple[str, Term]] = {}
    every = Aliases(lists)
    for terms in sorted(lists, key=lambda each: each.name):
        for term in terms.terms:
            known_in, known = seen.setdefault(term.plain, (terms.name, term))
            if known is not term and known.alias != term.alias:
                aliases = f"the alias `{known.alias}` in `{known_in}` and `{term.alias}` here"
                text = f"term `{term.text}` has {aliases}; keep one"
                problems.append(Problem("two-aliases", text, file=f"terms/{terms.name}.yaml", line=term.line))
            if every.holds_term(term.alias):
                text = f"alias `{term.alias}` holds a term itself; choose another"
                problems.append(Problem("telling-alias", text, file=f"terms/{terms.name}.yaml", line=term.line))
    return problems
