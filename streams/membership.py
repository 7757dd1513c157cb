"""A group's coordinator in this process goes in, and a worker that is told when another one took its name comes out:
the only place that deals with static membership.

A named worker (`group.instance.id`) that starts again within the session timeout gets its partitions back, and nobody
else's move. aiokafka cannot tell "your session ran out" from "another worker has your name": to both it joins anew
under no member id, so two workers with one name throw each other out for ever. Asked again under the old member id, the
broker says which of the two it is.
"""

from collections.abc import Callable
from typing import Any, Final

from aiokafka.protocol.group import JoinGroupRequest

from sluicegate.schemas.errors import ConfigurationError

FENCED_INSTANCE_ID: Final = 82
"""Kafka's error code (KIP-345) for a name that another member holds; aiokafka 0.14 has no name for it."""


def watch_membership(coordinator: Any, *, instance_id: str, fail: Callable[[BaseException], None]) -> None:
    """Has `fail` called, from the coordinator's loop, once another worker of the group took `instance_id`."""
    reset, send = coordinator.reset_generation, coordinator._send_req
    refused: str | None = None

    def reset_generation() -> None:
        member = coordinator.member_id
        reset()
        if member != refused:
            coordinator.member_id = member

    async def send_req(request: Any) -> Any:
        nonlocal refused
        joining = coordinator.member_id if isinstance(request, JoinGroupRequest) else None
        answer = await send(request)
        code = getattr(answer, "error_code", 0)
        if joining is not None:
            refused = joining if code != 0 else None
        if code == FENCED_INSTANCE_ID:
            fail(
                ConfigurationError(
                    f"another worker of `{coordinator.group_id}` runs as `{instance_id}`: stop one of them, or give "
                    "each a `SLUICEGATE_INSTANCE_ID` of its own"
                )
            )
        return answer

    coordinator.reset_generation, coordinator._send_req = reset_generation, send_req
