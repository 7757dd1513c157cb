"""An obligation before and after go in, how much stricter or looser it became comes out; the only place that says so.

Stricter and looser are those of the catalogue's merge laws: whatever a merge would keep is the stricter. Where no
policy says anything, the value counts that the gate itself then takes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from sluicegate.enforcer.obligations import CATALOGUE, MERGED, Law, Value, parse
from sluicegate.enforcer.parameters import OUTPUT_TOKENS_MAX

ABSENT: Final = "(nothing)"
_UNSAID: Final[Mapping[str, int]] = MappingProxyType({"max_tokens": OUTPUT_TOKENS_MAX})


class Direction(StrEnum):
    """Which way an obligation went; `OTHER`: neither value is stricter, or the text alone changed."""

    TIGHTENED = "tightened"
    LOOSENED = "loosened"
    OTHER = "changed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One part of an obligation that changed: `before` and `after` as texts."""

    name: str
    before: str
    after: str
    direction: Direction

    def text(self) -> str:
        """As one line."""
        return f"@{self.name}: {self.before} -> {self.after}"


def annotation_steps(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Step, ...]:
    """What changed of a policy's annotations, by name; those that no release merges, such as `@reason`, as texts."""
    found: list[Step] = []
    for name in sorted((before.keys() | after.keys()) - {"id"}):
        old, new = before.get(name), after.get(name)
        if name in MERGED:
            found += steps(name, None if old is None else parse(name, old), None if new is None else parse(name, new))
        elif old != new:
            found.append(Step(name=name, before=_said(old), after=_said(new), direction=Direction.OTHER))
    return tuple(found)


def steps(name: str, before: Value | None, after: Value | None) -> Iterator[Step]:
    """What changed of one obligation, one step a class or member; nothing where it means the same.

    None: no policy says it.
    """
    entry = CATALOGUE[name]
    match entry.law:
        case Law.MIN:
            direction = _numbers(_number(name, before), _number(name, after))
            yield from _step(name, _shown(before), _shown(after), direction)
        case Law.STRICTEST:
            direction = _numbers(-_level(entry.levels, before), -_level(entry.levels, after))
            yield from _step(name, _shown(before), _shown(after), direction)
        case Law.UNION:
            old, new = _members(before), _members(after)
            for each in sorted(old - new):
                yield Step(name=name, before=each, after=ABSENT, direction=Direction.LOOSENED)
            for each in sorted(new - old):
                yield Step(name=name, before=ABSENT, after=each, direction=Direction.TIGHTENED)
        case Law.OPERATORS:
            yield from _operators(name, before, after)
        case _:
            direction = Direction.OTHER
            if before is None or after is None:
                direction = Direction.TIGHTENED if before is None else Direction.LOOSENED
            yield from _step(name, _shown(before), _shown(after), direction)


def _step(name: str, before: str, after: str, direction: Direction) -> Iterator[Step]:
    if before != after:
        yield Step(name=name, before=before, after=after, direction=direction)


def _operators(name: str, before: Value | None, after: Value | None) -> Iterator[Step]:
    old = before if isinstance(before, Mapping) else {}
    new = after if isinstance(after, Mapping) else {}
    levels = CATALOGUE[name].levels
    for each in sorted(old.keys() | new.keys()):
        was, now = old.get(each), new.get(each)
        said = [f"{each}={operator}" if operator is not None else f"{each} {ABSENT}" for operator in (was, now)]
        yield from _step(name, said[0], said[1], _numbers(-_level(levels, was), -_level(levels, now)))


def _numbers(before: int | Decimal | None, after: int | Decimal | None) -> Direction:
    """Less is stricter; None is no limit."""
    if before == after:
        return Direction.OTHER
    if before is None or (after is not None and after < before):
        return Direction.TIGHTENED
    return Direction.LOOSENED


def _number(name: str, value: Value | None) -> int | Decimal | None:
    return value if isinstance(value, int | Decimal) else _UNSAID.get(name)


def _level(levels: tuple[str, ...], value: Value | None) -> int:
    return levels.index(value) if isinstance(value, str) else 0


def _members(value: Value | None) -> frozenset[str]:
    return value if isinstance(value, frozenset) else frozenset()


def _shown(value: Value | None) -> str:
    return ABSENT if value is None else str(value)


def _said(raw: str | None) -> str:
    return ABSENT if raw is None else f'"{raw}"'
