"""Versions of one kind go in, the one in force at an event time comes out; the only place that says when one starts.

A version is in force from the later of two times: the signed `effective_at_ms`, and the log's own time when it was
appended plus a fixed delay and the time that its content is given to be read in. So a worker that has read the log up
to some time knows what is in force until the delay after it, whatever is appended next, and two workers never disagree
at one T. The log's own time is the highest stamp of its accepted events: a pure function of the log. Only the first
version of what nothing is decided without may start earlier: before it everything was denied.
"""

from bisect import bisect_right
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Generic, Protocol, TypeVar

from sluicegate.enforcer.policy_kinds import Kind

DELAY_MS: Final = 500
# About twice what reading takes beside a busy event loop, one core (`bench/switch.py`): nobody waits for it so.
READ_PER_MS: Final = MappingProxyType({Kind.DIRECTORY: 500, Kind.BUNDLE: 100})  # bytes
CONFORMED_PER_MS: Final = 5  # entities that a new bundle's schema is held against
FOREVER_MS: Final = 1 << 62
"""Later than any event time: when stops expire."""
V_ = TypeVar("V_")


def reading_ms(kind: Kind, content_bytes: int, *, entities: int) -> int:
    """How long after the delay content of that many bytes starts, so that every worker has read it before it counts.

    `entities`: how many the directory holds that a bundle is to be held against.
    """
    conforming_ms = entities // CONFORMED_PER_MS if kind is Kind.BUNDLE else 0
    return conforming_ms + (content_bytes // READ_PER_MS[kind] if kind in READ_PER_MS else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled(Generic[V_]):
    """A version with the time from which it is in force, the one from which it is void, and where it stands.

    `effective_at_ms`: the time from which its signers wanted it in force.
    """

    value: V_
    version: int
    effective_at_ms: int
    from_ms: int
    expires_ms: int
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From when until when one version is in force and not void, and the offset at which it stands; -1 for none."""

    position: int
    from_ms: int
    until_ms: int


class Line(Protocol):
    """A timeline, whatever it holds."""

    def span(self, time_ms: int) -> Span:
        """As `Timeline.span`."""

    def forgot(self, time_ms: int) -> bool:
        """As `Timeline.forgot`."""

    def forget(self, time_ms: int) -> None:
        """As `Timeline.forget`."""


class Timeline(Generic[V_]):
    """The versions of one kind in the order of the log, each whole; the oldest are forgotten beyond `kept_max`.

    `early`: whether the first version is in force from its `effective_at_ms`, without the delay.
    """

    def __init__(self, *, kept_max: int, early: bool = False) -> None:
        self._kept_max = kept_max
        self._early = early
        self._kept: list[Scheduled[V_]] = []
        self._cut = False

    @property
    def newest(self) -> Scheduled[V_] | None:
        """The last version accepted, whether or not it is in force yet."""
        return self._kept[-1] if self._kept else None

    @property
    def kept(self) -> tuple[Scheduled[V_], ...]:
        """Every version that is not forgotten, oldest first."""
        return tuple(self._kept)

    def fork(self) -> "Timeline[V_]":
        """The same versions; what one of the two takes from now on, the other does not hold."""
        other = copy(self)
        other._kept = self._kept.copy()
        return other

    def scheduled(
        self,
        value: V_,
        *,
        version: int,
        effective_at_ms: int,
        expires_ms: int,
        log_ms: int,
        position: int,
        reading_ms: int = 0,
    ) -> Scheduled[V_]:
        """The version as `add` would take it. `log_ms`: the log's own time with this event in it; `reading_ms`: how
        much later than the delay it may start.
        """
        earliest_ms = 0 if self._early and not self._kept else log_ms + DELAY_MS + reading_ms
        from_ms = max(effective_at_ms, earliest_ms, self._kept[-1].from_ms if self._kept else 0)
        return Scheduled(
            value=value,
            version=version,
            effective_at_ms=effective_at_ms,
            from_ms=from_ms,
            expires_ms=expires_ms,
            position=position,
        )

    def add(self, next_: Scheduled[V_]) -> None:
        """Takes the next version."""
        self._kept.append(next_)
        if len(self._kept) > self._kept_max:
            del self._kept[: -self._kept_max]
            self._cut = True

    def at(self, time_ms: int) -> Scheduled[V_] | None:
        """The version in force at `time_ms`."""
        found = bisect_right(self._kept, time_ms, key=_from_ms)
        return self._kept[found - 1] if found else None

    def span(self, time_ms: int) -> Span:
        """What is known of this kind around `time_ms` without its value."""
        found = bisect_right(self._kept, time_ms, key=_from_ms)
        now = self._kept[found - 1] if found else None
        next_ms = self._kept[found].from_ms if found < len(self._kept) else FOREVER_MS
        if now is None:
            return Span(position=-1, from_ms=0, until_ms=next_ms)
        return Span(position=now.position, from_ms=now.from_ms, until_ms=min(next_ms, now.expires_ms))

    def forgot(self, time_ms: int) -> bool:
        """Whether what was in force at `time_ms` is known no more."""
        return self._cut and time_ms < self._kept[0].from_ms

    def forget(self, time_ms: int) -> None:
        """Drops every version that another had replaced by `time_ms`."""
        replaced = bisect_right(self._kept, time_ms, key=_from_ms) - 1
        if replaced > 0:
            del self._kept[:replaced]
            self._cut = True


def _from_ms(each: Scheduled[V_]) -> int:
    return each.from_ms
