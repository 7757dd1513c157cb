"""A replay of the example company's history, believed by the keys that its policy log was signed with."""

from collections.abc import Callable

from policy_events import DOMAIN
from unit.sinks import heron

from sluicegate.sinks.auditor import Auditor
from sluicegate.sinks.replay import replay
from sluicegate.sinks.replay_report import Report


def again(auditor: Auditor, candidate: bytes, *, progress: Callable[[int, int], None] | None = None) -> Report:
    return replay(auditor, candidate, domain=DOMAIN, root_digest=heron.ROOT_DIGEST, progress=progress)
