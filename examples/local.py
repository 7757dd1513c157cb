"""Runs a command as a service of the stack that runs here: an example's settings go into its environment.

    .venv/bin/python examples/local.py node examples/node/producer.mjs "What is the new cargo bike called?"

For development alone. Two things that a real service gets from elsewhere come from the stack's data directory: its
private key, and a token for a person, which your identity provider would give.
"""

import argparse
import json
import os
import time
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from joserfc import jws
from joserfc.jwk import OKPKey

HOME = Path(os.environ.get("SLUICEGATE_HOME", ".sluicegate"))


def key_id(path: Path) -> str:
    """What a development directory calls the public half of a key."""
    public = load_pem_private_key(path.read_bytes(), password=None).public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{path.name.split('-')[0]}-{sha256(spki).hexdigest()[:16]}"


def token(person: str, service: str, now_s: int) -> str:
    """An access token of the development issuer, good for ten minutes and for this service alone."""
    path = HOME / "keys" / "issuer-development.pem"
    claims = {"iss": "urn:sluicegate:development-issuer", "aud": "sluicegate", "exp": now_s + 600, "sub": person}
    header, key = {"alg": "Ed25519", "typ": "at+jwt", "kid": key_id(path)}, OKPKey.import_key(path.read_bytes())
    return jws.serialize_compact(header, json.dumps({**claims, "act": {"sub": service}}), key, ["Ed25519"])


def settings(service: str, person: str | None) -> dict[str, str]:
    """The environment of a service of the stack."""
    key = HOME / "keys" / f"service-{service}.pem"
    found = {
        "SG_BOOTSTRAP": json.loads((HOME / "run" / "state.json").read_text())["bootstrap"],
        "SG_TENANT": "main",
        "SG_ENV": "local",
        "SG_SCHEMAS": str(Path(__file__).absolute().parent.parent / "schemas" / "avro"),
        "SG_SERVICE": service,
        "SG_REPLIES": service,
        "SG_KEY_FILE": str(key.absolute()),
        "SG_KEY_ID": key_id(key),
        "SG_PRINCIPAL": f'Service::"{service}"',
        "SG_MODEL": "smollm2",
        "SG_PURPOSE": "writing",
    }
    if person is None:
        return found
    return {**found, "SG_PRINCIPAL": f'User::"{person}"', "SG_TOKEN": token(person, service, int(time.time()))}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--service", default="helpdesk-app")
    parser.add_argument("--as", dest="person", default="eva.eng", help="for whom; empty: the service asks for itself")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    clock = HOME / "run" / "clock"
    if clock.exists() and int(clock.read_text()):
        parser.error("the demo left this stack's clock ahead of the wall's; `sluicegate down`, then `sluicegate up`")
    environment = {**settings(told.service, told.person or None), **os.environ}
    os.execvpe(told.command[0], told.command, environment)  # noqa: S606 - its user wants just that run
