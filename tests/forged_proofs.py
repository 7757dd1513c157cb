"""What can be done to a proof of the right form or to the record under it: checks 3 to 6, 8 and 9; each with its code.

An outsider holds no key and changes texts; `draft.proving(...)` is a service with a genuine key that signs a lie.
"""

from dataclasses import replace
from random import Random
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from forge import CREDENTIALS, SERVICES, STRANGER, TOPIC, Draft, Forgery, Owner, Sent, collect, genuine, jti
from forged_texts import carried, joined, parts_of, text_of
from producers import NOW_S, PARTITIONS

from sluicegate.enforcer.identity import hash_claim, proof_audience
from sluicegate.enforcer.partition import partition_of
from sluicegate.schemas.codes import Code
from sluicegate.schemas.strict_json import decode_base64url, encode_base64url

PROOFS: list[Forgery] = []
forgery = collect(PROOFS)
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def another(random: Random, draft: Draft) -> Owner:
    return random.choice([each for each in SERVICES if each is not draft.service])


# ---- 3 `kid` -> the service's key, which fixes algorithm and owner


@forgery(Code.PROOF_KEY_UNKNOWN)
def unknown_key(random: Random, draft: Draft) -> Sent:
    kid = random.choice([f"{draft.service.kid}x", "", draft.service.kid.upper(), "../helpdesk-1", "party-1"])
    return replace(draft, proof=draft.proof.heading(kid=kid)).sent()


@forgery(Code.PROOF_KEY_UNKNOWN)
def own_key_in_anothers_name(random: Random, draft: Draft) -> Sent:
    return draft.proving(iss=another(random, draft).name).sent()


@forgery(Code.PROOF_KEY_UNKNOWN)
def anothers_kid(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    header, claims, signature = parts_of(text_of(record))
    return carried(record, joined({**header, "kid": another(random, draft).kid}, claims, signature))


@forgery(Code.PROOF_KEY_UNKNOWN)
def key_taken_out_of_the_directory(random: Random, draft: Draft) -> Sent:
    left = {kid: key for kid, key in CREDENTIALS.service_keys.items() if kid != draft.service.kid}
    return replace(draft.sent(), credentials=replace(CREDENTIALS, service_keys=left))


# ---- 4 signature


@forgery(Code.PROOF_SIGNATURE)
def one_claim_changed(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    header, claims, signature = parts_of(text_of(record))
    lie: dict[str, Any] = random.choice(
        [{"aud": claims["aud"] + "x"}, {"iat": claims["iat"] + 1}, {"jti": jti(random)}, {"key": 'User::"root"'},
         {"bh": hash_claim(b"other")}]
    )  # fmt: skip
    return carried(record, joined(header, {**claims, **lie}, signature))


@forgery(Code.PROOF_SIGNATURE)
def same_claims_written_otherwise(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    header, claims, signature = parts_of(text_of(record))
    return carried(record, joined(header, dict(reversed(claims.items())), signature))


@forgery(Code.PROOF_SIGNATURE)
def another_key(random: Random, draft: Draft) -> Sent:
    wrong = another(random, draft).key if random.random() < 0.5 else STRANGER
    return replace(draft, proof=replace(draft.proof, key=wrong)).sent()


@forgery(Code.PROOF_SIGNATURE)
def anothers_name_and_kid(random: Random, draft: Draft) -> Sent:
    other = another(random, draft)
    alg = "ES256" if other.kid in {"billing-1", "night-1"} else "Ed25519"
    return replace(draft, proof=draft.proof.heading(kid=other.kid, alg=alg).claiming(iss=other.name)).sent()


@forgery(Code.PROOF_SIGNATURE)
def signature_of_another_proof(random: Random, draft: Draft) -> Sent:
    other = genuine(random, person=False, service=draft.service).sent().record
    record = draft.sent().record
    header, claims, _ = text_of(record).split(".")
    return carried(record, f"{header}.{claims}.{text_of(other).rpartition('.')[2]}")


@forgery(Code.PROOF_SIGNATURE)
def signature_changed(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    signed, _, signature = text_of(record).rpartition(".")
    data = bytearray(decode_base64url(signature.encode()))
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    wrong = random.choice([bytes(data), b"", data[:-1], data + b"\0", bytes(64), b"\xff" * 64])
    return carried(record, f"{signed}.{encode_base64url(bytes(wrong))}")


@forgery(Code.PROOF_SIGNATURE)
def algorithm_of_another_key(random: Random, draft: Draft) -> Sent:
    alg = "ES256" if draft.proof.header["alg"] == "Ed25519" else random.choice(["Ed25519", "EdDSA"])
    return replace(draft, proof=draft.proof.heading(alg=alg)).sent()


@forgery(Code.PROOF_SIGNATURE, only="ES256")
def signature_in_der(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    signed, _, signature = text_of(record).rpartition(".")
    data = decode_base64url(signature.encode())
    der = encode_dss_signature(int.from_bytes(data[:32]), int.from_bytes(data[32:]))
    return carried(record, f"{signed}.{encode_base64url(der)}")


# ---- 5 `aud`, record key, partition, `bh`


@forgery(Code.PROOF_AUDIENCE)
def another_environment_tenant_or_topic(random: Random, draft: Draft) -> Sent:
    env, topic = random.choice(
        [("dev", TOPIC), ("PROD", TOPIC), ("", TOPIC), ("prod", "other.requests"), ("prod", "main.requests.x"),
         ("prod", "main.decisions"), ("prod", ""), ("prod:main.requests", "")]
    )  # fmt: skip
    return draft.proving(aud=proof_audience(env=env, topic=topic)).sent()


@forgery(Code.PROOF_KEY)
def another_record_key(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    key = random.choice([b'User::"root"', b"", None, b"\xff", (record.key or b"") + b"\0", (record.key or b"")[:-1]])
    partition = record.partition if key is None else partition_of(key, PARTITIONS)
    return Sent(record=replace(record, key=key, partition=partition))


@forgery(Code.PROOF_KEY)
def a_proof_for_another_record_key(random: Random, draft: Draft) -> Sent:
    lie = draft.proving(key=random.choice(['User::"root"', "", f"{draft.proof.claims['key']} "])).sent()
    return Sent(record=replace(draft.sent().record, headers=lie.record.headers))


@forgery(Code.WRONG_PARTITION)
def another_partition(random: Random, draft: Draft) -> Sent:
    record = draft.sent().record
    return Sent(record=replace(record, partition=(record.partition + random.randrange(1, PARTITIONS)) % PARTITIONS))


@forgery(Code.PROOF_BODY)
def another_body(random: Random, draft: Draft) -> Sent:
    data = bytearray(draft.value)
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    value = random.choice([bytes(data), draft.value + b"\0", draft.value[:-1], b""])
    return Sent(record=replace(draft.sent().record, value=value))


@forgery(Code.PROOF_BODY)
def no_body(random: Random, draft: Draft) -> Sent:
    return Sent(record=replace(draft.sent().record, value=None))


@forgery(Code.PROOF_BODY)
def the_body_of_another_request(random: Random, draft: Draft) -> Sent:
    other = genuine(random, person=False, service=draft.service)
    return Sent(record=replace(draft.sent().record, value=other.value + b"!"))


@forgery(Code.PROOF_KEY)
def a_key_that_is_not_the_principals(random: Random, draft: Draft) -> Sent:
    key = random.choice(['User::"root"', 'Service::"nobody"', "ana.support", "", f"{draft.proof.claims['key']} "])
    return draft.proving(key=key).sent()


# ---- 6 time


@forgery(Code.PROOF_TIME)
def expired(random: Random, draft: Draft) -> Sent:
    return draft.proving(iat=NOW_S - 301 - random.choice([0, 1, 86_400, NOW_S - 301])).sent()


@forgery(Code.PROOF_TIME)
def from_the_future(random: Random, draft: Draft) -> Sent:
    return draft.proving(iat=NOW_S + 31 + random.choice([0, 1, 86_400, (1 << 40) - NOW_S - 32])).sent()


@forgery(Code.PROOF_TIME)
def kept_for_later(random: Random, draft: Draft) -> Sent:
    late_ms = (draft.proof.claims["iat"] + 300) * 1000 + random.randint(1, 10**9)
    return replace(draft.sent(), time_ms=late_ms)


# ---- 8 not spent


@forgery(Code.PROOF_REPLAYED)
def replayed(random: Random, draft: Draft) -> Sent:
    sent = draft.sent()
    return replace(sent, before=(sent.record,))


@forgery(Code.PROOF_REPLAYED)
def same_id_over_another_body(random: Random, draft: Draft) -> Sent:
    body = random.randbytes(20)
    again = replace(draft, value=body).proving(bh=hash_claim(body))
    return replace(again.sent(), before=(draft.sent().record,))


@forgery(Code.PROOF_REPLAYED, only="ES256")
def replayed_with_the_other_signature_of_the_same_key(random: Random, draft: Draft) -> Sent:
    # ECDSA: (r, n-s) verifies where (r, s) does, without the key; the id is spent all the same.
    record = draft.sent().record
    signed, _, signature = text_of(record).rpartition(".")
    data = decode_base64url(signature.encode())
    other = data[:32] + (P256_ORDER - int.from_bytes(data[32:])).to_bytes(32)
    return replace(carried(record, f"{signed}.{encode_base64url(other)}"), before=(record,))
