"""What a stage that answers its input in order must be: the contract between pure stages and the loops that feed
them.
"""

from collections.abc import Sequence
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


class Stage(Protocol):
    """One partition of a stage. Its state is what `fold` made of the stage's own effective outputs, and nothing else.

    The caller MUST fold every effective output of the partition, in offset order, before the first `decide` and after
    every slice that landed; it MUST NOT fold a slice that did not land where it was sealed for. The implementer MUST
    NOT
    change state in `decide`: a proposal that is thrown away leaves no trace, and one made again is the same bytes.
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
