"""A roles file goes in, who may speak for what comes out, ready to be signed; the only place that reads such files.

YAML: the names of roles (`bundle`, `directory`, `directory/User`, ...), each with `holders`, a mapping from people to
their public PEM files (one or a list, relative to the roles file), and `threshold`, how many of these must sign (1).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sluicegate.enforcer.policy_kinds import path_of_role
from sluicegate.enforcer.trust_make import Signatory, Speakers
from sluicegate.given_file import read_given
from sluicegate.keys import KEY_BYTES_MAX, tuf_key_of
from sluicegate.schemas.errors import ConfigurationError

ROLES_BYTES_MAX: Final = 256 * 1024


def read_roles(file: Path) -> Mapping[str, Speakers]:
    """Who may speak for each role that the file names.

    Raises:
        ConfigurationError: it or a key cannot be read, or it has another form than the one above.
    """
    try:
        document = yaml.safe_load(read_given(file, ROLES_BYTES_MAX).decode("utf-8"))
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError):
        raise ConfigurationError(f"`{file}` cannot be read as YAML; mend the file") from None
    if not isinstance(document, dict) or not document:
        raise ConfigurationError(f"`{file}` must name each role with its `holders`, such as `bundle`")
    return {str(name): _speakers(file, str(name), each) for name, each in document.items()}


def _speakers(file: Path, name: str, value: object) -> Speakers:
    try:
        path_of_role(name)
    except ValueError as error:
        raise ConfigurationError(f"`{file}`: `{name}`: {error}") from None
    holders = value.get("holders") if isinstance(value, dict) else None
    threshold = value.get("threshold", 1) if isinstance(value, dict) else None
    if not isinstance(value, dict) or value.keys() - {"holders", "threshold"} or type(threshold) is not int:
        raise ConfigurationError(f"`{file}`: `{name}` must have `holders`, and may have `threshold`, a whole number")
    if not isinstance(holders, dict) or not holders:
        raise ConfigurationError(f"`{file}`: `holders` of `{name}` must name people, each with key files")
    if not 1 <= threshold <= len(holders):
        raise ConfigurationError(f"`{file}`: `{name}` has {len(holders)} holders, who cannot meet {threshold}")
    found = tuple(
        Signatory(holder=str(holder), key=tuf_key_of(read_public(file.parent / str(path))))
        for holder, paths in holders.items()
        for path in (paths if isinstance(paths, list) else [paths])
    )
    return Speakers(signatories=found, threshold=threshold)


def read_public(file: Path) -> Ed25519PublicKey:
    """The public half in a PEM file that somebody named.

    Raises:
        ConfigurationError: it cannot be read, or is no Ed25519 key.
    """
    try:
        key = load_pem_public_key(read_given(file, KEY_BYTES_MAX))
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"`{file}` is no public key in PEM; name the `.pub` file of its holder") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"`{file}` must be an Ed25519 key; have its holder make another")
    return key
