"""A bundle folder and a directory file go in, signed policy events come out on the policy log; only valid ones."""

import json
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.credentials import parse_credentials
from sluicegate.enforcer.directory import load_directory
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.trust import digest_of
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.loaded_bundles import loaded
from sluicegate.policy_writer import policy_writer
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.settings import Settings
from sluicegate.topics import ensure as ensure_topics
from sluicegate.topics import require_replies


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is in force after a publication. `changed` is false where it was in force before."""

    version: int
    digest: str
    policies: int
    directory_version: int
    changed: bool


async def publish(
    settings: Settings,
    bundle_dir: Path,
    directory_path: Path,
    *,
    development: bool = False,
    publisher: Signer | None = None,
) -> Published:
    """Publishes what is not in force yet: root, what was stopped, stage keys, directory, bundle, in this order.

    `development`: a one-box installation, which makes and adds the keys and reply topics that are missing.
    `publisher`: who signs, where its key is no file here (any signer of securesystemslib, so those of KMS and HSM too).

    Raises:
        InvalidBundle, InvalidDirectory: nothing was published; what was in force stays so.
        ConfigurationError, Unavailable: a file or key cannot be read, or the broker does not answer.
    """
    installation = Installation(settings, Home(root=settings.home), development=development)
    bundle = read_bundle(bundle_dir)
    found = loaded(bundle)
    try:
        text = directory_path.read_bytes()  # noqa: ASYNC240 - once, at the start of a short command
    except OSError as error:
        raise ConfigurationError(f"the directory `{directory_path}` cannot be read: {error.strerror}") from None
    directory = installation.directory_content(text)
    load_directory(directory, found)
    replies = parse_credentials(json.loads(directory)).replies
    if development:
        await ensure_topics(settings, replies)
    else:
        await require_replies(settings, replies)
    async with policy_writer(settings, installation, publisher=publisher) as writer:
        writer.check_service_keys(directory)
        keys = installation.stage_keys(writer.stage_keys)
        await writer.root()
        await writer.restore_stops()
        await writer.content(Kind.KEYS, keys)
        directory_version, directory_changed = await writer.content(Kind.DIRECTORY, directory)
        version, changed = await writer.content(Kind.BUNDLE, bundle)
    return Published(
        version=version,
        digest=digest_of(bundle),
        policies=len(found.policies),
        directory_version=directory_version,
        changed=changed or directory_changed,
    )
