"""A maker of directory changes goes in, what it makes of the directory in force comes out, and stands on the policy log
where that is wanted.
"""

from collections.abc import Callable

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.bundle import Bundle
from sluicegate.enforcer.directory_change import DirectoryContent, read_whole
from sluicegate.enforcer.directory_merge import Import
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings


async def change_in_force(
    settings: Settings,
    made: Callable[[DirectoryContent, Bundle], Import],
    *,
    publish: bool,
    signer: Signer | None = None,
) -> tuple[Import, int | None]:
    """What `made` makes of the newest directory and bundle, and the version that says so where it was published.

    Raises:
        ConfigurationError: no directory or bundle was published yet, or a key is missing.
        InvalidDirectory: `made` or the stages refuse it; nothing was appended.
        Unavailable: the broker does not answer.
    """
    async with policy_writer(settings, Installation(settings, Home(root=settings.home)), publisher=signer) as writer:
        whole, bundle = writer.directory, writer.bundle
        if whole is None or bundle is None:
            raise ConfigurationError(
                "no directory and bundle are in force; run `sluicegate publish` first, or give `--directory`"
            )
        found = made(read_whole(whole), bundle)
        version = await writer.change_directory(found.content) if publish and found.content else None
        return found, version
