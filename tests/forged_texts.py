"""Proofs that are no strict compact JWS of the right kind, whoever signed them: checks 1 and 2; each with its code."""

import json
from dataclasses import replace
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from forge import (
    STRANGER,
    Draft,
    Forgery,
    Owner,
    Sent,
    collect,
    compact,
    genuine,
    jwk_of,
)
from producers import NOW_S

from sluicegate.enforcer.identity import PROOF_BYTES_MAX, hash_claim
from sluicegate.schemas.codes import Code
from sluicegate.schemas.records import Record
from sluicegate.schemas.strict_json import decode_base64url, encode_base64url

TEXTS: list[Forgery] = []
forgery = collect(TEXTS)


def text_of(record: Record, name: str = "sg-proof") -> str:
    return (record.header(name) or b"").decode()


def carried(record: Record, text: str | bytes, name: str = "sg-proof") -> Sent:
    """The record with another text in its header."""
    data = text if isinstance(text, bytes) else text.encode()
    headers = tuple((each, data if each == name else value) for each, value in record.headers)
    return Sent(record=replace(record, headers=headers))


def parts_of(text: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    header, claims, signature = text.split(".")
    return json.loads(decode_base64url(header.encode())), json.loads(decode_base64url(claims.encode())), signature


def joined(header: dict[str, Any], claims: dict[str, Any], signature: str) -> str:
    return ".".join([*(encode_base64url(json.dumps(each).encode()) for each in (header, claims)), signature])


# ---- 1 sizes, one of each header


@forgery(Code.PROOF_MISSING)
def proof_taken_off(random: Random, draft: Draft) -> Sent:
    sent = draft.sent()
    return replace(sent, record=replace(sent.record, headers=sent.record.headers[1:]))


@forgery(Code.PROOF_MISSING)
def two_proofs(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    second = genuine(random, person=False, service=draft.service).sent().record.headers[0]
    return Sent(record=replace(record, headers=(second, *record.headers)))


@forgery(Code.PROOF_MALFORMED)
def too_long(random: Random, draft: Draft) -> Sent:
    padded = replace(draft.proof, claims_text=lambda claims: json.dumps(claims) + " " * PROOF_BYTES_MAX)
    return replace(draft, proof=padded).sent()


@forgery(Code.PROOF_MALFORMED)
def empty_proof(random: Random, draft: Draft) -> Sent:
    return carried(draft.sent().record, b"")


# ---- 2 strict JSON, no `crit`, `jwk`, `jku`, `x5u`


def brings(random: Random) -> dict[str, Any]:
    """A header member that would bring a key or change what is signed."""
    return random.choice(
        [
            {"jwk": jwk_of(Owner(name="", kid="", key=STRANGER))}, {"jku": "https://rogue.example/jwks"},
            {"x5u": "https://rogue.example/x509"}, {"x5c": ["AAAA"]}, {"crit": ["exp"]}, {"crit": []},
            {"b64": False, "crit": ["b64"]}, {"b64": True},
        ]
    )  # fmt: skip


@forgery(Code.PROOF_MALFORMED)
def brought_key_and_its_signature(random: Random, draft: Draft) -> Sent:
    proof = replace(draft.proof, key=STRANGER).heading(alg="Ed25519", **brings(random))
    return replace(draft, proof=proof).sent()


@forgery(Code.PROOF_MALFORMED)
def brought_key_under_the_true_signature(random: Random, draft: Draft) -> Sent:
    return replace(draft, proof=draft.proof.heading(**brings(random))).sent()


@forgery(Code.PROOF_MALFORMED)
def unknown_header_member(random: Random, draft: Draft) -> Sent:
    member: dict[str, Any] = random.choice([{"cty": "JWT"}, {"zip": "DEF"}, {"x5t#S256": "A" * 43}, {"exp": 1}])
    return replace(draft, proof=draft.proof.heading(**member)).sent()


@forgery(Code.PROOF_MALFORMED)
def wrong_type(random: Random, draft: Draft) -> Sent:
    kind = random.choice(["JWT", "dpop+jwt", "at+jwt", "SG-PROOF+JWT", "sg-proof+jwt ", None, 1, ...])
    return replace(draft, proof=draft.proof.heading(typ=kind)).sent()


@forgery(Code.PROOF_MALFORMED)
def header_member_of_another_kind(random: Random, draft: Draft) -> Sent:
    return replace(draft, proof=draft.proof.heading(**odd_member(random))).sent()


def odd_member(random: Random) -> dict[str, Any]:
    return {random.choice(["alg", "kid"]): random.choice([..., None, 7, True, ["Ed25519"], {"x": 1}])}


@forgery(Code.PROOF_MALFORMED)
def unsigned(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    header, claims, _ = parts_of(text_of(record))
    return carried(record, joined({**header, "alg": random.choice(["none", "None", "NONE", "nOnE", ""])}, claims, ""))


@forgery(Code.PROOF_MALFORMED)
def public_key_as_secret(random: Random, draft: Draft) -> Sent:
    public = draft.service.key.public_key()
    secret = random.choice(
        [
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk_of(draft.service)).encode(),
        ]
    )
    record = draft.sent().record
    header, claims, _ = parts_of(text_of(record))
    signed = joined({**header, "alg": "HS256"}, claims, "").rstrip(".")
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signed.encode())
    return carried(record, f"{signed}.{encode_base64url(mac.finalize())}")


def doubled(members: dict[str, Any], random: Random) -> str:
    """The members with one of them a second time, before or after, plain or escaped."""
    name = random.choice(sorted(members))
    again = random.choice([json.dumps(name), f'"\\u{ord(name[0]):04x}{name[1:]}"'])
    extra, body = f"{again}: {json.dumps('other')}", json.dumps(members)[1:-1]
    return random.choice([f"{{{extra}, {body}}}", f"{{{body}, {extra}}}"])


@forgery(Code.PROOF_MALFORMED)
def claim_twice(random: Random, draft: Draft) -> Sent:
    return replace(draft, proof=replace(draft.proof, claims_text=lambda claims: doubled(claims, random))).sent()


@forgery(Code.PROOF_MALFORMED)
def header_member_twice(random: Random, draft: Draft) -> Sent:
    return replace(draft, proof=replace(draft.proof, header_text=lambda header: doubled(header, random))).sent()


@forgery(Code.PROOF_MALFORMED)
def claim_left_out(random: Random, draft: Draft) -> Sent:
    proof = draft.proof.claiming(**{random.choice(["iss", "aud", "iat", "jti", "key", "bh"]): ...})
    return carried(draft.sent().record, proof.text())


@forgery(Code.PROOF_MALFORMED)
def claim_too_many(random: Random, draft: Draft) -> Sent:
    return draft.proving(**{random.choice(["exp", "nbf", "sub", "htm", "nonce", "x"]): NOW_S + 60}).sent()


def claiming(draft: Draft, lie: dict[str, Any]) -> Sent:
    """The record as it was, under a truly signed proof with the lie."""
    token = draft.token.text() if draft.token else None
    ath = {} if token is None else {"ath": hash_claim(token.encode())}
    return Sent(record=draft.record(draft.proof.claiming(**{**ath, **lie}).text(), token))


@forgery(Code.PROOF_MALFORMED)
def name_of_another_kind(random: Random, draft: Draft) -> Sent:
    name = random.choice(["iss", "aud", "key"])
    return claiming(draft, {name: random.choice([[draft.proof.claims[name]], None, 7])})


@forgery(Code.PROOF_MALFORMED)
def time_of_another_kind(random: Random, draft: Draft) -> Sent:
    at = draft.proof.claims["iat"]
    return claiming(draft, {"iat": random.choice([float(at), str(at), True, -1, 1 << 40, None, [at]])})


@forgery(Code.PROOF_MALFORMED)
def id_of_another_kind(random: Random, draft: Draft) -> Sent:
    odd = ["short", "B" * 65, "B" * 22 + "\n", 7, None, "é" * 22, ["B" * 22]]
    return claiming(draft, {"jti": random.choice(odd)})


@forgery(Code.PROOF_MALFORMED)
def hash_of_another_kind(random: Random, draft: Draft) -> Sent:
    name = random.choice(["bh", "ath"])
    true = str(draft.proof.claims["bh"])
    return claiming(draft, {name: random.choice([None, f"{true}=", true[:-1], "", 7, [true], "é" * 43])})


@forgery(Code.PROOF_MALFORMED)
def not_base64url(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    text = text_of(record)
    at = random.randrange(1, len(text))
    return carried(
        record,
        random.choice(
            [f"{text}=", f"{text}==", f"{text}\n", f" {text}", f"{text[:at]}\n{text[at:]}", f"{text[:at]}+{text[at:]}",
             text.replace(".", "=.", 1), text.replace(".", ".\t", 1), f"{text[:-1]}{chr(ord(text[-1]) + 1)}"]
        ),
    )  # fmt: skip


@forgery(Code.PROOF_MALFORMED)
def no_compact_jws(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    header, claims, signature = text_of(record).split(".")
    flat = json.dumps({"protected": header, "payload": claims, "signature": signature})
    return carried(
        record,
        random.choice([flat, f"{header}.{claims}", f"{header}.{claims}.{signature}.", f".{claims}.{signature}", "..",
                       f"{header}..{signature}", f"{claims}.{header}.{signature}", "\ufeff" + text_of(record)]),
    )  # fmt: skip


@forgery(Code.PROOF_MALFORMED)
def no_object(random: Random, draft: Draft) -> Sent:
    garbage = random.choice(["[]", "1", '"x"', "null", "[" * 2000, "", "{", "{}{}", '{"iat": NaN}', '"\\ud800"'])
    return carried(draft.sent().record, compact(draft.service.key, json.dumps(draft.proof.header), garbage))
