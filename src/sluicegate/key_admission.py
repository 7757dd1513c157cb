"""Key ids go in, what the policy log says of them or their revocation comes out: how keys leave, and who still counts.

A stage's key leaves by a new KEYS version that says from which event time on its seals are void. A service's key leaves
by a new directory version that lists it no more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from securesystemslib.signer import Signer  # type: ignore[attr-defined]

from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.seal import StageKey
from sluicegate.enforcer.stage_keys import stage_keys_content
from sluicegate.home import Home
from sluicegate.installation import Installation
from sluicegate.keys import PRIVATE, PUBLIC, KeyFolder, KeyName, key_id_of
from sluicegate.policy_writer import Admission, PolicyWriter, policy_writer
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.ids import KeyId
from sluicegate.settings import Settings

LEAD_MS: Final = 2_000
"""How far ahead a revocation takes effect: every stage must know of it before its event time comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """A key that leaves at event time `until_ms`, and how many its owner has left; `changed`: it was in force."""

    kind: str
    owner: str
    version: int
    until_ms: int
    left: int
    changed: bool


async def admissions(settings: Settings) -> Mapping[str, Admission]:
    """Every key of the policy log, by id.

    Raises:
        ConfigurationError, Unavailable: there is no root of trust, or the broker does not answer.
    """
    installation = Installation(settings, Home(root=settings.home))
    async with policy_writer(settings, installation) as writer:
        return writer.admissions


async def stage_keys_in_force(settings: Settings) -> str:
    """The content of the newest KEYS version: what a client needs to verify seals and copies of releases.

    Raises:
        ConfigurationError, Unavailable: as `admissions`; or nothing was published yet.
    """
    installation = Installation(settings, Home(root=settings.home))
    async with policy_writer(settings, installation) as writer:
        if not writer.stage_keys:
            raise ConfigurationError("no stage keys are published yet; run `sluicegate publish`")
        return stage_keys_content(_sorted(writer.stage_keys)).decode("ascii")


def _sorted(keys: Mapping[KeyId, StageKey]) -> list[StageKey]:
    return sorted(keys.values(), key=lambda each: (each.stage, each.key_id))


async def revoke(
    settings: Settings, key_id: str, *, at_ms: int | None = None, publisher: Signer | None = None
) -> Revoked:
    """Takes a stage's or a service's key out of force. `at_ms`: event time, for a stage's key; None: once all know.

    Raises:
        ConfigurationError: the policy log knows no such key, the time has passed, or the publisher's key is missing.
        Unavailable: the broker does not answer.
    """
    installation = Installation(settings, Home(root=settings.home))
    async with policy_writer(settings, installation, publisher=publisher) as writer:
        known = writer.admissions.get(key_id)
        if known is None:
            raise ConfigurationError(f"the policy log knows no key `{key_id}`; `sluicegate keys list` shows all")
        if known.kind == "stage":
            return await _revoke_stage_key(writer, KeyId(key_id), at_ms)
        if at_ms is not None:
            raise ConfigurationError("a service's key leaves with the next directory version; leave `--at` out")
        return await _revoke_service_key(writer, key_id, known)


async def _revoke_stage_key(writer: PolicyWriter, key_id: KeyId, at_ms: int | None) -> Revoked:
    now_ms = writer.now_ms()
    until_ms = now_ms + LEAD_MS if at_ms is None else at_ms
    if until_ms < now_ms + LEAD_MS:
        # What it sealed since would turn void although others acted on it, and no log would read back.
        raise ConfigurationError(f"a key can leave {LEAD_MS} ms from now at the earliest: leave `--at` out, or later")
    keys = dict(writer.stage_keys)
    key = keys[key_id]
    changed = key.revoked_at_ms is None or until_ms < key.revoked_at_ms
    if changed:
        keys[key_id] = replace(key, revoked_at_ms=until_ms)
    content = stage_keys_content(_sorted(keys))
    version, _ = await writer.content(Kind.KEYS, content)
    return Revoked(
        kind="stage",
        owner=key.stage,
        version=version,
        until_ms=keys[key_id].revoked_at_ms or until_ms,
        left=sum(_stays(each, key.stage) for each in keys.values()),
        changed=changed,
    )


def _stays(key: StageKey, stage: str) -> bool:
    return key.stage == stage and key.revoked_at_ms is None


async def _revoke_service_key(writer: PolicyWriter, kid: str, known: Admission) -> Revoked:
    document = json.loads(writer.directory or b"{}")
    listed = document.get("service_keys", [])
    document["service_keys"] = [each for each in listed if each["kid"] != kid]
    content = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    version, changed = await writer.content(Kind.DIRECTORY, content)
    return Revoked(
        kind="service",
        owner=known.owner,
        version=version,
        until_ms=writer.admissions[kid].until_ms or writer.now_ms(),
        left=sum(each["service"] == known.owner for each in document["service_keys"]),
        changed=changed,
    )


def find_key(folder: KeyFolder, key_id: str) -> KeyName | None:
    """The key of the folder with this id; keys that cannot be read are passed over.

    Raises:
        ConfigurationError: the folder cannot be read.
    """
    for name in folder.names(PRIVATE, PUBLIC):
        try:
            if key_id_of(folder.public(name), name.prefix) == key_id:
                return name
        except ConfigurationError:
            continue
    return None
