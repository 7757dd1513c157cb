"""Rules and entities that stand otherwise than in their directory go in, the rules as they would then be come out; the
only place that changes a directory for a tool.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from rpds import HashTrieMap

from sluicegate.enforcer.access import Rules
from sluicegate.enforcer.bundle import digest_of
from sluicegate.enforcer.credentials import Credentials
from sluicegate.enforcer.decide import Decider
from sluicegate.enforcer.directory_change import DirectoryContent
from sluicegate.schemas.ids import EntityUid

Put = tuple[tuple[EntityUid, str], ...]
"""Entities that are put in place of the directory's, or added to it: uid and JSON, sorted by uid."""
_NOBODY: Final = Credentials(service_keys={}, issuers={}, replies={})
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def put_of(entities: Mapping[EntityUid, Mapping[str, object]]) -> Put:
    """Entities (`uid`, `attrs`, `parents`) by uid, as they are kept: equal ones are equal."""
    return tuple(sorted((uid, _CANONICAL.encode(dict(entity))) for uid, entity in entities.items()))


def with_entity(put: Put, uid: EntityUid, entity: Mapping[str, object]) -> Put:
    """The same entities, and this one."""
    return tuple(sorted({**dict(put), uid: _CANONICAL.encode(dict(entity))}.items()))


def rules_with(rules: Rules, put: Put) -> Rules:
    """The rules over the directory as it would be if these entities were put.

    Raises:
        InvalidDirectory: with one line for each problem and what to do.
    """
    if not put:
        return rules
    before = rules.directory
    # Only what changed is looked at in a changed content, so this one holds no more.
    content = DirectoryContent(
        digest=digest_of(f"{before.digest} changed {_CANONICAL.encode(put)}".encode()),
        entities=HashTrieMap(dict(put)),
        entries=MappingProxyType({}),
        credentials=_NOBODY,
        origin=before.digest,
        touched=frozenset(uid for uid, _ in put),
    )
    directory = before.changed(content, rules.bundle)
    return Rules(
        bundle=rules.bundle, directory=directory, decider=Decider(rules.bundle, directory, before=rules.decider)
    )
