"""What an issuer's entry is to become goes in, a signed change of the directory stands on the policy log."""

from collections.abc import Callable
from dataclasses import dataclass

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.directory_change import read_whole
from sluicegate.enforcer.jwks import IssuerUpdate
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.strict_json import JsonObject
from sluicegate.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What differs from the directory in force, and the version that says so; None where nothing differs."""

    update: IssuerUpdate
    version: int | None


async def publish_issuer(
    settings: Settings,
    issuer: str,
    updated: Callable[[JsonObject | None], IssuerUpdate],
    *,
    signer: Signer | None = None,
) -> Published:
    """Publishes what `updated` makes of the issuer's entry in the newest directory; None where it has none yet.

    `signer`: who signs, the publisher where it is None; a key that speaks for issuers alone is enough.

    Raises:
        ConfigurationError: no directory was published yet, or a key is missing.
        InvalidDirectory: the stages would reject the change; nothing was appended.
        Unavailable: the broker does not answer.
    """
    async with policy_writer(settings, Installation(settings, Home(root=settings.home)), publisher=signer) as writer:
        whole = writer.directory
        if whole is None:
            raise ConfigurationError("no directory is in force that could be changed; run `sluicegate publish` first")
        update = updated(read_whole(whole).entries["issuers"].get(issuer))
        if not update.content:
            return Published(update=update, version=None)
        return Published(update=update, version=await writer.change_directory(update.content))
