"""A release goes in, what a producing service sees of it comes out: one `Answer` a request, whatever became of it."""

from dataclasses import dataclass
from typing import Self

from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.errors import SluicegateError
from sluicegate.schemas.events import Clamp, ReleaseMade
from sluicegate.schemas.ids import EventKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The terminal release of one request. `text` is the redacted answer and is None unless `outcome` is RELEASED.

    `place` is where the request that was decided stands in the log of requests. `duplicate_of` is set where this
    request repeated one that was decided before: everything else then is what was released for that first one, whose
    decision it names. `withheld` are the fields kept out of the prompt, `redacted` the classes of what was redacted.
    """

    outcome: ReleaseOutcome
    code: Code
    retryable: bool
    retry_after_ms: int | None
    reason: str | None
    text: str | None
    finish: str | None
    request_id: str
    decision_id: str | None
    duplicate_of: str | None
    withheld: tuple[str, ...]
    redacted: tuple[str, ...]
    unsupported: int
    clamps: tuple[Clamp, ...]
    place: EventKey
    release: ReleaseMade

    @property
    def released(self) -> bool:
        """Whether there is an answer to read."""
        return self.outcome is ReleaseOutcome.RELEASED

    def require(self) -> Self:
        """This answer, where it is one.

        Raises:
            NotReleased: the request was denied, refused, blocked, held or has expired.
        """
        if not self.released:
            raise NotReleased(self)
        return self


class NotReleased(SluicegateError):
    """The request ended without an answer; `answer` is its terminal release."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"request `{answer.request_id}` was not answered: {answer.outcome.value}, {answer.code.value}")
        self.answer = answer


def answer_of(release: ReleaseMade, *, request_id: str, place: EventKey, repeats: bool = False) -> Answer:
    """The answer that a release is. `repeats`: what was asked is another record than at `place`, with its body."""
    classes = dict.fromkeys(each.redaction_class for each in release.redactions)
    return Answer(
        outcome=release.outcome,
        code=release.code,
        retryable=release.retryable,
        retry_after_ms=release.retry_after_ms,
        reason=release.reason,
        text=release.text,
        finish=release.finish,
        request_id=request_id,
        decision_id=release.decision_id,
        duplicate_of=release.decision_id if repeats else release.duplicate_of,
        withheld=release.withheld,
        redacted=tuple(classes),
        unsupported=release.unsupported,
        clamps=release.clamps,
        place=place,
        release=release,
    )
