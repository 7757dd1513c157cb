"""Blocks of a document go in, plain text or Markdown comes out; the only place that lays text out for reviewers.

Names stand in backticks in both. In Markdown, whatever outside them could be read as markup is escaped.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

Form = Literal["text", "markdown"]
_CODE: Final = re.compile(r"(?P<fence>`+)(?P<inner>.+?)(?<!`)(?P=fence)(?!`)", re.DOTALL)
_MARKUP: Final = re.compile(r"[\\*_<>\[\]#|~]")
_TICKS: Final = re.compile("`+")
_INDENT: Final = "  "
_UNDERLINES: Final = ("=", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A heading; `level` counts from 1."""

    level: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """One line of prose."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a list; `depth` counts from 0."""

    depth: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbatim:
    """Lines that are shown as they are."""

    text: str


Block = Heading | Paragraph | Item | Verbatim


def lay_out(blocks: Sequence[Block], form: Form) -> Iterator[str]:
    """The lines of a document; a blank one between blocks, none between the entries of a list."""
    markdown = form == "markdown"
    if blocks:
        yield from _lines(blocks[0], markdown=markdown)
    for before, block in pairwise(blocks):
        if not (isinstance(before, Item) and isinstance(block, Item)):
            yield ""
        yield from _lines(block, markdown=markdown)


def code(text: str) -> str:
    """The text between backticks: more of them than stand together in it."""
    fence = "`" * (max((len(each) for each in _TICKS.findall(text)), default=0) + 1)
    return f"{fence}{text}{fence}"


def _lines(block: Block, *, markdown: bool) -> Iterator[str]:
    match block:
        case Heading(level=level, text=text):
            if markdown:
                yield f"{'#' * level} {_escaped(text)}"
            else:
                yield text
                if level <= len(_UNDERLINES):
                    yield _UNDERLINES[level - 1] * len(text)
        case Paragraph(text=text):
            yield _escaped(text) if markdown else text
        case Item(depth=depth, text=text):
            yield f"{_INDENT * depth}- {_escaped(text) if markdown else text}"
        case Verbatim(text=text):
            fence = "`" * max(3, max((len(each) for each in _TICKS.findall(text)), default=0) + 1)
            if markdown:
                yield f"{fence}text"
            for line in text.split("\n"):
                yield line if markdown else f"{_INDENT * 2}{line}".rstrip()
            if markdown:
                yield fence


def _escaped(text: str) -> str:
    """The text with a backslash before what Markdown would take for markup, outside backticks."""
    pieces, end = [], 0
    for found in _CODE.finditer(text):
        pieces += [_MARKUP.sub(r"\\\g<0>", text[end : found.start()]), found[0]]
        end = found.end()
    return "".join((*pieces, _MARKUP.sub(r"\\\g<0>", text[end:])))
