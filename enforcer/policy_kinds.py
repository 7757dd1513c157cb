"""What policy metadata can vouch for, who may be told apart in signing it, and why it can be refused: the only list."""

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined]

from sluicegate.schemas.events import DirectoryChanged, PolicyPublished

Event = PolicyPublished | DirectoryChanged
_DIRECTORY_ROLE: Final = re.compile(r"directory/[A-Za-z_][A-Za-z0-9_]*(?:::[A-Za-z_][A-Za-z0-9_]*)*")


class Kind(StrEnum):
    """What signed metadata vouches for; all but DIRECTORY are `events.PolicyKind`'s."""

    ROOT = "ROOT"
    KEYS = "KEYS"
    BUNDLE = "BUNDLE"
    DIRECTORY = "DIRECTORY"
    ROLES = "ROLES"
    STOP = "STOP"
    RESUME = "RESUME"
    SHADOW = "SHADOW"


class Fault(StrEnum):
    """Why a policy event is refused."""

    NO_ROOT = "NO_ROOT"
    """Nothing is trusted yet, or the first root is not the pinned one."""
    MALFORMED = "MALFORMED"
    """It does not have the form of signed metadata of its kind."""
    FOREIGN = "FOREIGN"
    """It was signed for another environment, tenant, kind or version than the one it comes as."""
    UNSIGNED = "UNSIGNED"
    """Too few of those who may speak for it signed it."""
    NOT_DELEGATED = "NOT_DELEGATED"
    """Its signers speak for other entity types than the ones it touches."""
    EXPIRED = "EXPIRED"
    """It, or what it is trusted by, has expired."""
    TAMPERED = "TAMPERED"
    """Its content is not the one that was signed."""
    OLDER = "OLDER"
    """Its version is not above the one before."""
    OUT_OF_ORDER = "OUT_OF_ORDER"
    """A version between the one before and this one is missing, and it makes sense only after that."""
    BACKDATED = "BACKDATED"
    """It would take effect no later than the version before."""
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    """It touches an entity type that the newest bundle does not know."""
    INVALID = "INVALID"
    """It is truly signed, and its content cannot be used."""


FIXES: Final[Mapping[Fault, str]] = MappingProxyType(
    {
        Fault.NO_ROOT: "publish the root of trust first, the one that every stage pins",
        Fault.MALFORMED: "have the envelope made again with `sluicegate policy sign`",
        Fault.FOREIGN: "sign it for this environment, tenant and version: `sluicegate policy sign --env`",
        Fault.UNSIGNED: "let those who are missing sign it: `sluicegate policy sign` names them",
        Fault.NOT_DELEGATED: "let those sign it who speak for all that it touches, or have ROLES name these for it",
        Fault.EXPIRED: "sign it anew with a later expiry; where root or roles have expired, their next version first",
        Fault.TAMPERED: "have the envelope made and signed again; somebody changed its content",
        Fault.OLDER: "sign it anew under the next version: another one was published since",
        Fault.OUT_OF_ORDER: "sign it anew on the version that is the newest now",
        Fault.BACKDATED: "sign it anew with a later `--effective-at`",
        Fault.UNKNOWN_TYPE: "publish a bundle whose schema knows the type first, or correct the type",
        Fault.INVALID: "mend the content and sign it anew: `sluicegate policy check` names file and line",
    }
)
"""What to do about each."""


DELEGABLE: Final = tuple(kind for kind in Kind if kind not in {Kind.ROOT, Kind.ROLES})


def kind_of(event: Event) -> Kind:
    """What a policy event is of."""
    return Kind.DIRECTORY if isinstance(event, DirectoryChanged) else Kind(event.kind.value)


def role_of(kind: Kind) -> str:
    """The TUF role of the root that must sign this kind, where no ROLES version delegates it."""
    return Root.type if kind is Kind.ROOT else Targets.type


def delegated_role(kind: Kind) -> str:
    """The name of the role by which ROLES delegates a kind."""
    return kind.value.lower()


def directory_role(entity_type: str) -> str:
    """The name of the role by which ROLES delegates the directory's entities of one type, or of a pseudo type."""
    return f"{delegated_role(Kind.DIRECTORY)}/{entity_type}"


def path_of_role(name: str) -> str:
    """The target for which a delegated role may sign.

    Raises:
        ValueError: nothing is delegated by that name.
    """
    for kind in DELEGABLE:
        if name == delegated_role(kind) or (kind is Kind.DIRECTORY and _DIRECTORY_ROLE.fullmatch(name)):
            return target_path(kind)
    raise ValueError("there is no such role; use a kind in lower case, or `directory/TYPE`")


def target_path(kind: Kind) -> str:
    """The one target of this kind's metadata."""
    return f"{kind.value.lower()}.json"
