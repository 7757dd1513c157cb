"""A folder, a file or words go in, the content that people can sign comes out: the only place that says what of each
kind may be signed at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sluicegate.bundle_folder import read_bundle
from sluicegate.enforcer.directory_change import Change, read_content
from sluicegate.enforcer.policy_kinds import Kind
from sluicegate.enforcer.stage_keys import STAGES
from sluicegate.enforcer.stops import stops_content
from sluicegate.enforcer.trust import CONTENT_BYTES_MAX
from sluicegate.enforcer.trust_make import Speakers
from sluicegate.given_file import read_given
from sluicegate.installation import Installation
from sluicegate.loaded_bundles import loaded
from sluicegate.policy_versions import PolicyView
from sluicegate.roles_file import read_roles
from sluicegate.schemas.errors import ConfigurationError
from sluicegate.schemas.strict_json import NotStrict, loads_object
from sluicegate.stopping import stop_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is to be signed: content of a kind, or who may speak for which role."""

    kind: Kind
    content: bytes = b""
    speakers: Mapping[str, Speakers] | None = None


def bundle_part(folder: Path) -> Part:
    """The bundle in a folder.

    Raises:
        ConfigurationError, InvalidBundle: it cannot be read, or is no valid bundle.
    """
    content = read_bundle(folder)
    loaded(content)
    return Part(kind=Kind.BUNDLE, content=content)


def directory_part(file: Path, installation: Installation) -> Part:
    """The directory in a file as it is published, or a change of one as it stands.

    Raises:
        ConfigurationError: it cannot be read, or is no JSON object.
        InvalidDirectory: it is neither.
    """
    data = read_given(file, CONTENT_BYTES_MAX).rstrip(b"\n")  # `directory import` ends its line
    try:
        is_change = loads_object(data).keys() == {"change"}
    except NotStrict:
        raise ConfigurationError(f"`{file}` is no strict JSON object; give a directory or a change of one") from None
    content = data if is_change else installation.directory_content(data)
    found = read_content(content)
    # A whole directory is written anew, and a change is what somebody reviewed.
    return Part(kind=Kind.DIRECTORY, content=data if isinstance(found, Change) else content)


def roles_part(file: Path) -> Part:
    """The roles in a file.

    Raises:
        ConfigurationError: as `read_roles`.
    """
    return Part(kind=Kind.ROLES, speakers=read_roles(file))


def keys_part(installation: Installation, view: PolicyView) -> Part:
    """The stage keys of the log, and those of this installation's folder that are not there yet.

    Raises:
        ConfigurationError: a stage would be left without a key.
    """
    before = {key_id: key for stage in STAGES for key_id, key in view.state.stage_keys(stage).items()}
    return Part(kind=Kind.KEYS, content=installation.stage_keys(before))


def resume_part(what: str, name: str, view: PolicyView) -> Part:
    """The end of a stop.

    Raises:
        ConfigurationError: that is no stop, or it does not stand.
    """
    stop = stop_of(what, name)
    if stop not in view.state.stops.standing:
        raise ConfigurationError(f"{stop} is not stopped; `sluicegate policy status` names what is")
    return Part(kind=Kind.RESUME, content=stops_content({stop}))
