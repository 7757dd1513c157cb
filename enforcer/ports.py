"""What a stage that answers its input in order must be: the contract between pure stages and the loops that feed
them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sluicegate.enforcer.seal import Effective
from sluicegate.schemas.records import Record, Unsent


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Outputs for a contiguous run of sources starting at the frontier, ready to be sealed as one slice."""

    outputs: tuple[Unsent, ...]
    source_first: int
    source_last: int
    time_ms: int
    policy_position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Which of its folded outputs can still change what a stage decides: those at most `window_ms` of event time older
    than the newest one (0: none), and of these no more than the newest `count_max` that `counts` is true of.
    """

    window_ms: int
    count_max: int
    counts: Callable[[Effective], bool]


FORGETS = Memory(window_ms=0, count_max=0, counts=lambda _: True)
"""Of a stage that keeps nothing between outputs."""


class Stage(Protocol):
    """One partition of a stage. Its state is what `fold` made of the stage's own effective outputs, and nothing else.

    The caller MUST fold every effective output of the partition that `memory` names, and all that follow the first of
    them, in offset order, before the first `decide`, and every slice that landed after that; it MUST NOT fold a slice
    that did not land where it was sealed for. The implementer MUST NOT change state in `decide`: a proposal that is
    thrown away leaves no trace, and one made again is the same bytes.
    """

    @property
    def memory(self) -> Memory:
        """What the state can depend on; the same for the life of the stage."""

    def lose(self, time_ms: int) -> None:
        """Told before the first `fold` where the log no longer keeps all that `memory` names: outputs of event time up
        to `time_ms` are gone. What the stage cannot know any more it MUST refuse.
        """

    def fold(self, effective: Effective) -> None:
        """Takes one effective output of this stage into the state."""

    def decide(self, records: Sequence[Record], *, frontier: int, time_ms: int, clock_ms: int | None) -> Proposal:
        """Outputs for `records`, or for a non-empty prefix of them that fits one slice.

        `records` stand at ascending offsets >= `frontier`; an offset that is missing between `frontier` and the last
        record
        is a confirmed hole and gets an output of its own (code GAP). `time_ms` is the event time of the log so far.
        `clock_ms` replaces the records' stamps where the broker keeps producers' stamps (None: use the stamps).
        """
