"""A service of this one-box installation: its name goes in, what its client needs comes out, keys and clock included.

A service of a real deployment holds its own key and a file of the redactor's; here all lie on one machine, so this is
for the command line, the demo and tests.
"""

from sluicegate.broker_access import broker_config, broker_security
from sluicegate.client import ClientConfig
from sluicegate.clock import StackClock
from sluicegate.enforcer.state import PolicyLog
from sluicegate.home import Home
from sluicegate.installation import ISSUER, ISSUER_KEY, TOKEN_AUDIENCE, Installation
from sluicegate.keys import key_id_of
from sluicegate.proof import make_token
from sluicegate.registry import ids_at_start
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings
from sluicegate.streams.kafka import Broker
from sluicegate.streams.policy_tail import PolicyTail
from sluicegate.streams.topology import REDACTOR, Topology

START_TIMEOUT_S = 20.0
TOKEN_LIFETIME_S = 600


async def service_config(settings: Settings, service: str, *, timeout_s: float = 60.0) -> ClientConfig:
    """How a client asks as `service`: with its key of this installation, its reply topic and the redactor's keys as the
    policy log says now.

    Raises:
        ConfigurationError: the directory gives the service no reply topic, or its key is not here.
        Unavailable: the broker does not answer.
    """
    home = Home(root=settings.home)
    installation = Installation(settings, home)
    clock = _clock(settings)
    topology = Topology(tenant=settings.tenant, partitions=settings.partitions)
    state = PolicyLog(domain=installation.domain, root_digest=installation.root_digest())
    async with Broker(broker_config(settings, "client")) as broker:
        policy = PolicyTail(broker, topic=topology.policy, state=state)
        try:
            await policy.start(timeout_s=START_TIMEOUT_S)
            replies = policy.replies_at(clock.now_ms()) or {}
            trust = policy.stage_keys(REDACTOR)
        finally:
            await policy.stop()
    if service not in replies:
        known = ", ".join(f"`{each}`" for each in sorted(replies)) or "none"
        raise ConfigurationError(f"the directory gives `{service}` no reply topic; services that have one: {known}")
    return ClientConfig(
        bootstrap=settings.bootstrap,
        service=service,
        key=installation.keys.service(service),
        trust=trust,
        reply=replies[service],
        env=settings.env,
        tenant=settings.tenant,
        epoch=settings.epoch,
        partitions=settings.partitions,
        security=broker_security(settings),
        timeout_s=timeout_s,
        request_timeout_s=settings.request_timeout_s,
        fetch_wait_ms=settings.fetch_wait,
        schema_ids=await ids_at_start(settings),
        now_ms=clock.now_ms,
    )


def person_token(settings: Settings, *, service: str, person: str) -> str:
    """An access token for `person` that only `service` may send, from the development issuer of this installation."""
    issuer = Installation(settings, Home(root=settings.home)).keys.issuer(ISSUER_KEY)
    return make_token(
        issuer,
        kid=key_id_of(issuer, "issuer"),
        issuer=ISSUER,
        audience=TOKEN_AUDIENCE,
        claims={"sub": person, "act": {"sub": service}},
        now_s=_clock(settings).now_ms() // 1000,
        lifetime_s=TOKEN_LIFETIME_S,
    )


def _clock(settings: Settings) -> StackClock:
    return StackClock(settings.home if settings.event_time == "enforcer" else None)
