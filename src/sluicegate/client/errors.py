"""What a call of the client raises, split by what the caller must do; the tree of `schemas.errors` goes on here.

SluicegateError
+-- NotReleased             the request has its release, and it is no answer: `answer` says which code and why
+-- Unavailable
    +-- NotAnswered         no release in time: look for it later with `find`
    +-- TooManyWaiting      nothing was sent: ask again when fewer requests of this client wait
"""

from sluicegate.schemas.errors import Unavailable
from sluicegate.schemas.ids import EventKey


class NotAnswered(Unavailable):
    """No release came in time. The request may still be answered; `place` is None where no send was acknowledged."""

    def __init__(self, request_id: str, *, within_s: float, place: EventKey | None) -> None:
        sent = "it was sent" if place is not None else "whether it was sent is not known"
        super().__init__(
            f"no release for request `{request_id}` within {within_s:g} s ({sent}); "
            f"look for it later with `find` and this request id"
        )
        self.request_id = request_id
        self.place = place


class TooManyWaiting(Unavailable):
    """As many requests as `waiting_max` wait for their releases already; this one was not sent."""

    def __init__(self, waiting_max: int) -> None:
        super().__init__(f"{waiting_max} requests wait already and this one was not sent; ask again later")
