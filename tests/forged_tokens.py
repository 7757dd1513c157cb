"""What can be done to a token, by outsiders, by the service that carries it and by its own issuer; each with its code.

The proof around it is genuine and made for the very token that is sent, unless a forgery says otherwise: a service
with a key can always prove what it sends.
"""

import json
from dataclasses import replace
from random import Random
from typing import Any

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from forge import (
    CREDENTIALS,
    ISSUERS,
    SERVICES,
    STRANGER,
    TOKEN_AUDIENCE,
    Draft,
    Forgery,
    Jws,
    Owner,
    Sent,
    algorithm_of,
    collect,
    genuine,
    jwk_of,
    thumbprint,
)
from forged_proofs import another
from forged_texts import brings, carried, doubled, joined, odd_member, parts_of
from producers import NOW_S

from sluicegate.enforcer.identity import TOKEN_BYTES_MAX, hash_claim
from sluicegate.schemas.codes import Code
from sluicegate.schemas.strict_json import encode_base64url

TOKENS: list[Forgery] = []
forgery = collect(TOKENS)


def parts(draft: Draft) -> tuple[Owner, Jws]:
    assert draft.issuer is not None
    assert draft.token is not None
    return draft.issuer, draft.token


def with_token(draft: Draft, token: Jws) -> Sent:
    return replace(draft, token=token).sent()


# ---- 1 and 2: sizes, one header, strict JSON


@forgery(Code.PROOF_MISSING, person=True)
def two_tokens(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    return Sent(record=replace(record, headers=(*record.headers, record.headers[1])))


@forgery(Code.TOKEN_MALFORMED, person=True)
def too_long_a_token(random: Random, draft: Draft) -> Sent:
    return draft.told(groups="g" * TOKEN_BYTES_MAX).sent()


@forgery(Code.TOKEN_MALFORMED, person=True)
def empty_or_senseless_token(random: Random, draft: Draft) -> Sent:
    return draft.carrying(random.choice(["", ".", "..", "a.b.c", "Bearer x", "{}"]))


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_that_brings_a_key(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    if random.random() < 0.5:
        token = replace(token, key=STRANGER).heading(alg="Ed25519")
    return with_token(draft, token.heading(**brings(random)))


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_claim_twice(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    return with_token(draft, replace(token, claims_text=lambda claims: doubled(claims, random)))


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_header_member_twice(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    return with_token(draft, replace(token, header_text=lambda header: doubled(header, random)))


@forgery(Code.TOKEN_MALFORMED, person=True)
def another_type_of_token(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    kind = random.choice(["sg-proof+jwt", "dpop+jwt", "logout+jwt", "token-introspection+jwt", "", None, 7, "at+jwt "])
    return with_token(draft, token.heading(typ=kind))


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_header_member_of_another_kind(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    return with_token(draft, token.heading(**odd_member(random)))


@forgery(Code.TOKEN_MALFORMED, person=True)
def id_or_refresh_token(random: Random, draft: Draft) -> Sent:
    return draft.told(**random.choice([{"typ": "ID"}, {"typ": "Refresh"}, {"typ": None}, {"token_use": "id"}])).sent()


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_without_plain_times(random: Random, draft: Draft) -> Sent:
    lie: dict[str, Any] = random.choice(
        [{"exp": ...}, {"exp": None}, {"exp": "never"}, {"exp": 1e12}, {"exp": True}, {"exp": 1 << 40}, {"exp": -1},
         {"nbf": None}, {"nbf": "0"}, {"nbf": 1.5}]
    )  # fmt: skip
    return draft.told(**lie).sent()


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_without_plain_names(random: Random, draft: Draft) -> Sent:
    lie: dict[str, Any] = random.choice(
        [{"iss": ...}, {"iss": None}, {"iss": 7}, {"aud": ...}, {"aud": [TOKEN_AUDIENCE, 7]}, {"aud": {"x": 1}}]
    )
    return draft.told(**lie).sent()


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_not_base64url(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    text = token.text()
    return draft.carrying(random.choice([f"{text}=", f"{text}\n", f" {text}", text.replace(".", "=.", 1), f"{text}."]))


@forgery(Code.TOKEN_MALFORMED, person=True)
def a_proof_as_token(random: Random, draft: Draft) -> Sent:
    return draft.carrying(genuine(random, person=False, service=draft.service).proof.text())


# ---- 7 token


@forgery(Code.TOKEN_PROOF, person=True)
def token_taken_off(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    return Sent(record=replace(record, headers=record.headers[:1]))


@forgery(Code.TOKEN_PROOF, person=False)
def token_put_on(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    other = genuine(random, person=True, service=draft.service).sent().record.headers[1]
    return Sent(record=replace(record, headers=(*record.headers, other)))


@forgery(Code.TOKEN_PROOF, person=True)
def another_token_under_the_same_proof(random: Random, draft: Draft) -> Sent:
    other = genuine(random, person=True, service=draft.service)
    return carried(draft.sent().record, parts(other.told(x=1))[1].text(), "sg-token")


@forgery(Code.TOKEN_PROOF, person=True)
def proof_for_another_token(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    wrong = random.choice([hash_claim(b""), hash_claim(b"other"), "A" * 43])
    return Sent(record=draft.record(draft.proof.claiming(ath=wrong).text(), token.text()))


@forgery(Code.TOKEN_ISSUER, person=True)
def unknown_issuer(random: Random, draft: Draft) -> Sent:
    issuer, token = parts(draft)
    name = random.choice(["https://evil.example", f"{issuer.name}/", issuer.name.upper(), "", "helpdesk-app"])
    return with_token(draft, token.claiming(iss=name))


@forgery(Code.TOKEN_ISSUER, person=True)
def unknown_key_of_the_issuer(random: Random, draft: Draft) -> Sent:
    issuer, token = parts(draft)
    return with_token(draft, token.heading(kid=random.choice(["", f"{issuer.kid}x", "helpdesk-1", "../x", "0"])))


@forgery(Code.TOKEN_ISSUER, person=True)
def one_issuer_for_another(random: Random, draft: Draft) -> Sent:
    issuer, token = parts(draft)
    other = random.choice([each for each in ISSUERS if each is not issuer])
    return with_token(draft, random.choice([token.claiming(iss=other.name), token.heading(kid=other.kid)]))


@forgery(Code.TOKEN_ISSUER, person=True)
def issuers_key_taken_out(random: Random, draft: Draft) -> Sent:
    issuer, _ = parts(draft)
    entry = CREDENTIALS.issuers[issuer.name]
    left = {name: each for name, each in CREDENTIALS.issuers.items() if name != issuer.name}
    if random.random() < 0.5:
        left[issuer.name] = replace(entry, keys={f"{issuer.kid}-next": entry.keys[issuer.kid]})
    return replace(draft.sent(), credentials=replace(CREDENTIALS, issuers=left))


@forgery(Code.TOKEN_SIGNATURE, person=True)
def token_claim_changed(random: Random, draft: Draft) -> Sent:
    issuer, token = parts(draft)
    header, claims, signature = parts_of(token.text())
    lie: dict[str, Any] = random.choice(
        [{issuer.claim: "root"}, {"exp": claims["exp"] + 9}, {"aud": [TOKEN_AUDIENCE]}, {"azp": "rogue-app", "x": 1},
         {"cnf": {"jkt": thumbprint(draft.service)}, "x": 1}, {"nbf": 0}]
    )  # fmt: skip
    return draft.carrying(joined(header, {**claims, "more": 1, **lie}, signature))


@forgery(Code.TOKEN_SIGNATURE, person=True)
def token_of_another_key(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    return with_token(draft, replace(token, key=random.choice([STRANGER, draft.service.key])))


@forgery(Code.TOKEN_SIGNATURE, person=True)
def signature_of_another_token(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    signed = token.text().rpartition(".")[0]
    return draft.carrying(f"{signed}.{parts(draft.told(x=1))[1].text().rpartition('.')[2]}")


@forgery(Code.TOKEN_SIGNATURE, person=True)
def unsigned_token(random: Random, draft: Draft) -> Sent:
    _, token = parts(draft)
    header, claims, _ = parts_of(token.text())
    alg = random.choice(["none", "None", "NONE", "", header["alg"]])
    return draft.carrying(joined({**header, "alg": alg}, claims, ""))


@forgery(Code.TOKEN_SIGNATURE, person=True)
def issuers_public_key_as_secret(random: Random, draft: Draft) -> Sent:
    issuer, token = parts(draft)
    secret = random.choice(
        [
            issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            json.dumps(jwk_of(issuer)).encode(),
        ]
    )
    header, claims, _ = parts_of(token.text())
    signed = joined({**header, "alg": random.choice(["HS256", "HS512"])}, claims, "").rstrip(".")
    mac = hmac.HMAC(secret, hashes.SHA256())
    mac.update(signed.encode())
    return draft.carrying(f"{signed}.{encode_base64url(mac.finalize())}")


@forgery(Code.TOKEN_SIGNATURE, person=True)
def another_algorithm_of_the_token(random: Random, draft: Draft) -> Sent:
    issuer, token = parts(draft)
    others = [alg for alg in ("ES256", "Ed25519", "EdDSA", "RS256", "PS256", "RS512", "ES384") if alg]
    wrong = [alg for alg in others if alg != algorithm_of(issuer.key)]
    if algorithm_of(issuer.key) == "Ed25519":
        wrong.remove("EdDSA")  # the older name of the same algorithm
    return with_token(draft, token.heading(alg=random.choice(wrong)))


@forgery(Code.TOKEN_AUDIENCE, person=True)
def token_for_another_audience(random: Random, draft: Draft) -> Sent:
    aud: Any = random.choice(["urn:sluicegate:dev", "", [], ["mail", "files"], f"{TOKEN_AUDIENCE}/", "URN:x"])
    return draft.told(aud=aud).sent()


@forgery(Code.TOKEN_TIME, person=True)
def expired_token(random: Random, draft: Draft) -> Sent:
    return draft.told(exp=NOW_S - random.choice([0, 1, 3600])).sent()


@forgery(Code.TOKEN_TIME, person=True)
def token_not_valid_yet(random: Random, draft: Draft) -> Sent:
    return draft.told(nbf=NOW_S + 31 + random.choice([0, 1, 3600]), exp=NOW_S + 9000).sent()


@forgery(Code.TOKEN_BINDING, person=True)
def stolen_token(random: Random, draft: Draft) -> Sent:
    """The token of one service, with the genuine proof of another."""
    other = genuine(random, person=True, service=another(random, draft))
    proof = other.proof.claiming(key=draft.proof.claims["key"])
    return replace(other, issuer=draft.issuer, token=draft.token, proof=proof).sent()


@forgery(Code.TOKEN_BINDING, person=True)
def token_bound_to_another_key(random: Random, draft: Draft) -> Sent:
    """Whatever weaker tie the issuer allows, and whatever else the confirmation says."""
    other, own = thumbprint(another(random, draft)), thumbprint(draft.service)
    cnf: Any = random.choice(
        [{"jkt": other}, {"jkt": f"{own}="}, {"jkt": [own]}, {"jkt": None}, {}, None, own, [{"jkt": own}],
         {"x5t#S256": own}, {"jkt": own, "x5t#S256": "A" * 43}, {"jwk": jwk_of(draft.service)}, {"kid": own}]
    )  # fmt: skip
    return draft.told(cnf=cnf).sent()


@forgery(Code.TOKEN_BINDING, person=True)
def token_bound_to_nobody(random: Random, draft: Draft) -> Sent:
    issuer, _ = parts(draft)
    return draft.told(**{issuer.binding.partition(".")[0]: ...}).sent()


@forgery(Code.TOKEN_BINDING, person=True)
def token_tied_to_another_service(random: Random, draft: Draft) -> Sent:
    """By the claim that the issuer entry names; the service stands in every other one."""
    issuer, _ = parts(draft)
    name, other = draft.service.name, another(random, draft)
    ties: dict[str, Any] = {"azp": name, "client_id": name, "act": {"sub": name}}
    match issuer.binding:
        case "cnf.jkt":
            ties["cnf"] = {"jkt": thumbprint(other)}
        case "act.sub":
            chain = {"sub": other.name, "act": {"sub": name}}  # who acted before acts no more (RFC 8693 4.1)
            ties["act"] = random.choice([{"sub": other.name}, chain, name, [name], None, {"sub": [name]}, {}])
        case binding:
            ties[binding] = random.choice([other.name, name.upper(), [name], None, "", f"{name} "])
    return draft.told(**ties).sent()


@forgery(Code.TOKEN_BINDING, person=True, only="act.sub")
def actor_of_another_issuer(random: Random, draft: Draft) -> Sent:
    """Its names are not ours (RFC 8693 section 4.1)."""
    iss = random.choice(["https://elsewhere.example", "", None, ["https://actor.example"]])
    return draft.told(act={"sub": draft.service.name, "iss": iss}).sent()


@forgery(Code.TOKEN_BINDING, person=True, only="cnf.jkt")
def a_claim_that_is_called_as_the_binding_is(random: Random, draft: Draft) -> Sent:
    return draft.told(cnf=..., **{"cnf.jkt": random.choice([draft.service.name, thumbprint(draft.service)])}).sent()


@forgery(Code.TOKEN_MALFORMED, person=True)
def token_of_no_usable_principal(random: Random, draft: Draft) -> Sent:
    issuer, _ = parts(draft)
    return draft.told(**{issuer.claim: random.choice([..., "", None, 7, ["ana"], "a\nb", "a" * 257, "\x00"])}).sent()


# ---- 9 principal


@forgery(Code.PROOF_KEY, person=True)
def token_of_another_person(random: Random, draft: Draft) -> Sent:
    """Truly issued and truly bound, but the record is accounted to somebody else."""
    issuer, _ = parts(draft)
    return draft.told(**{issuer.claim: "mallory"}).sent()


assert {each.kid for each in SERVICES} == set(CREDENTIALS.service_keys)
