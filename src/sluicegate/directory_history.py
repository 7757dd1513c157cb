"""Settings go in, the policy log of this installation comes out, to be folded again by `enforcer.history`."""

from collections.abc import AsyncIterator

from sluicegate.broker_access import broker_config
from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.schemas.records import Record
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PARTITION
from sluicegate.streams.topology import Topology


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
