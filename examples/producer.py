"""A producer with nothing of Sluicegate in it: `helpdesk-app` sends one proved request, for a person, to a stack.

    .venv/bin/python examples/producer.py "What is the new cargo bike called?"

On the machine of an embedded stack alone: it takes the service's private key, and the key of the development issuer
(where your identity provider would stand), from the stack's data directory. Libraries: aiokafka, fastavro, joserfc.
"""

import asyncio
import io
import json
import os
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

from aiokafka import AIOKafkaProducer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form
from joserfc import jws
from joserfc.jwk import OKPKey

HOME = Path(os.environ.get("SLUICEGATE_HOME", ".sluicegate"))
SCHEMA = json.loads((Path(__file__).parent.parent / "schemas" / "avro" / "RequestSubmitted.v1.avsc").read_text())
TOPIC, SERVICE, PERSON = "main.requests", "helpdesk-app", "eva.eng"


def hashed(data: bytes) -> str:
    """Base64url of SHA-256, without padding."""
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def signed(key_file: str, typ: str, claims: dict[str, object]) -> str:
    """A compact JWS over the claims. The key id is whatever the directory lists the public key under."""
    pem = (HOME / "keys" / key_file).read_bytes()
    private = load_pem_private_key(pem, password=None)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": "Ed25519", "typ": typ, "kid": f"{key_file.split('-')[0]}-{sha256(public).hexdigest()[:16]}"}
    registry = jws.JWSRegistry(algorithms=["Ed25519"])
    return jws.serialize_compact(header, json.dumps(claims), OKPKey.import_key(pem), registry=registry)


def encoded(request: dict[str, object]) -> bytes:
    """Avro single-object encoding: a marker, the fingerprint of the schema, the body."""
    out = io.BytesIO(b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO")))
    out.seek(0, io.SEEK_END)
    schemaless_writer(out, parse_schema(SCHEMA), request)
    return out.getvalue()


async def submit(question: str) -> str:
    """Publishes the question and returns its request id."""
    clock = HOME / "run" / "clock"  # after the demo an embedded stack's clock runs ahead of the wall's
    now_ms = time.time_ns() // 1_000_000 + (int(clock.read_text()) if clock.exists() else 0)
    now, request_id = now_ms // 1000, f"example-{uuid.uuid4()}"
    message = {"role": "user", "content": question}
    value = encoded({"request_id": request_id, "model": "smollm2", "purpose": "roadmap", "messages": [message]})
    key = f'User::"{PERSON}"'  # the accounting principal; murmur2 of it chooses the partition, as in any Kafka client
    person = {"iss": "urn:sluicegate:development-issuer", "aud": "sluicegate", "exp": now + 300, "sub": PERSON}
    token = signed("issuer-development.pem", "at+jwt", {**person, "act": {"sub": SERVICE}})
    proof = {"iss": SERVICE, "aud": f"urn:sluicegate:local:{TOPIC}", "iat": now, "jti": token_urlsafe(16), "key": key}
    proof |= {"bh": hashed(value), "ath": hashed(token.encode())}
    jwt = signed(f"service-{SERVICE}.pem", "sg-proof+jwt", proof)
    headers = [("sg-proof", jwt.encode()), ("sg-token", token.encode())]
    bootstrap = json.loads((HOME / "run" / "state.json").read_text())["bootstrap"]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        await producer.send_and_wait(TOPIC, value, key.encode(), headers=headers, timestamp_ms=now_ms)
    return request_id


if __name__ == "__main__":
    sent = asyncio.run(submit(" ".join(sys.argv[1:]) or "What is the capital of France?"))
    sys.stdout.write(f"sent; to see what became of it:  .venv/bin/sluicegate audit show {sent}\n")
