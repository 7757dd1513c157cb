"""The records of a policy log go in, the rules of one event time come out, by the very fold that the stages run."""

from collections.abc import AsyncIterator, Iterable

from sluicegate.broker_access import broker_config
from sluicegate.enforcer.state import PolicyLog, Rules
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.schemas.errors import CodecError, Unavailable
from sluicegate.schemas.records import Record
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PARTITION, decode_policy_event
from sluicegate.streams.topology import Topology


def rules_then(records: Iterable[Record], state: PolicyLog, time_ms: int) -> Rules:
    """The rules in force at `time_ms`. `state`: an empty log, which is left folded as far as was needed.

    Raises:
        Unavailable: nothing was in force then, and why.
    """
    found = state.at(time_ms)
    for record in records:
        # What stands later in the log than T starts later too, but for the first versions of all, which come first.
        if record.timestamp_ms > time_ms and isinstance(found, Rules):
            break
        try:
            state.fold(record.offset, decode_policy_event(record), record.timestamp_ms)
        except CodecError:
            state.skip(record.offset)
        found = state.at(time_ms)
    if not isinstance(found, Rules):
        raise Unavailable(f"nothing was in force at that time: {found.reason}; ask for another")
    return found


def empty_log(settings: Settings) -> PolicyLog:
    """A log of this installation, before its first event.

    Raises:
        ConfigurationError: the root of trust is missing.
    """
    installation = Installation(settings, Home(root=settings.home))
    return PolicyLog(domain=installation.domain, root_digest=installation.root_digest())


async def standing_log(settings: Settings) -> list[Record] | None:
    """The policy log as it stands on the broker; None where its beginning is gone.

    Raises:
        Unavailable: the broker does not answer.
    """
    topic = Topology(tenant=settings.tenant, partitions=settings.partitions).policy
    async with Broker(broker_config(settings, "publish")) as broker:
        if await broker.start_offset(topic, PARTITION) > 0:
            return None
        batches: AsyncIterator[list[Record]] = broker.read(topic, PARTITION, start=0)
        return [record async for batch in batches for record in batch]
