"""Keys of services and issuers: what is well formed is parsed once, anything else is refused with its place."""

from collections.abc import Mapping
from copy import deepcopy

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from sluicegate.enforcer.credentials import Algorithm, Binding, parse_credentials
from sluicegate.keys import public_jwk
from sluicegate.schemas.errors import InvalidDirectory
from sluicegate.schemas.strict_json import NotStrict, decode_base64url, encode_base64url, loads

KEY = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
P256 = derive_private_key(7, SECP256R1())
RSA = RSAKey.generate_key(2048)


def document() -> dict[str, list[dict[str, object]]]:
    return {
        "service_keys": [
            {"kid": "a", "service": "app", "jwk": public_jwk(KEY)},
            {"kid": "b", "service": "app", "jwk": public_jwk(P256) | {"use": "sig", "alg": "ES256", "kid": "b"}},
        ],
        "issuers": [
            {
                "issuer": "https://id.example",
                "audience": "gate",
                "principal_claim": "sub",
                "binding": "azp",
                "jwks": {"keys": [{**RSA.as_dict(), "kid": "r", "alg": "RS256"}]},
            }
        ],
        "entities": [],
    }


def test_each_admitted_kind_of_key() -> None:
    found = parse_credentials(document())
    assert [key.public.algorithm for key in found.service_keys.values()] == [Algorithm.ED25519, Algorithm.ES256]
    issuer = found.issuers["https://id.example"]
    assert (issuer.algorithm, issuer.binding) == (Algorithm.RS256, Binding.PARTY)
    assert issuer.keys["r"].admits("RS256")
    assert not issuer.keys["r"].admits("PS256")
    assert found.service_keys["b"].public.verifies(b"x", b"") is False


def test_no_keys_at_all_is_said_by_empty_lists() -> None:
    assert parse_credentials({"service_keys": [], "issuers": []}).service_keys == {}


def refused(changed: Mapping[str, object]) -> str:
    with pytest.raises(InvalidDirectory) as caught:
        parse_credentials(changed)
    return str(caught.value)


@pytest.mark.parametrize(
    ("jwk", "says"),
    [
        (OKPKey.import_key(KEY).as_dict(private=True), "private or secret"),
        (ECKey.import_key(P256).as_dict(private=True), "private or secret"),
        (OctKey.import_key("A" * 43).as_dict(private=True), "private or secret"),
        (RSA.as_dict(), "ES256 or Ed25519"),
        (ECKey.generate_key("P-384", private=False).as_dict(), "must be EC P-256"),
        (OKPKey.generate_key("X25519", private=False).as_dict(), "must be EC P-256"),
        (public_jwk(KEY) | {"alg": "ES256"}, "`alg`"),
        (public_jwk(KEY) | {"alg": "none"}, "`alg`"),
        (public_jwk(KEY) | {"use": "enc"}, "meant for signatures"),
        (public_jwk(KEY) | {"x5u": "https://x.example"}, "exactly"),
        (public_jwk(KEY) | {"x": public_jwk(KEY)["x"] + "="}, "base64url"),
        (public_jwk(KEY) | {"x": "AAAA"}, "base64url"),
        (public_jwk(KEY) | {"x": 7}, "base64url"),
        (public_jwk(KEY) | {"kid": "other"}, "another `kid`"),
        (public_jwk(P256) | {"y": public_jwk(P256)["x"]}, "not a point"),
        ({"kty": "OKP", "crv": "Ed25519"}, "exactly"),
        ({}, "must be EC P-256"),
        ("a key", "JWK object"),
    ],
)
def test_a_key_that_is_not_admitted(jwk: object, says: str) -> None:
    changed = document()
    changed["service_keys"][0]["jwk"] = jwk
    text = refused(changed)
    assert "`service_keys[0]`" in text
    assert says in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"binding": "none"}, "`binding`"),
        ({"binding": None}, "`binding`"),
        ({"issuer": ""}, "`issuer`"),
        ({"audience": "a\n"}, "`audience`"),
        ({"principal_claim": 1}, "`principal_claim`"),
        ({"jwks": {"keys": []}}, "1 to"),
        ({"jwks": {"keys": [public_jwk(KEY)]}}, "`kid`"),
        ({"jwks": {"keys": [public_jwk(KEY, "x"), public_jwk(P256, "y")]}}, "one algorithm"),
        (
            {"jwks": {"keys": [{"kty": "RSA", "n": encode_base64url(b"\xff" * 255), "e": "AQAB", "kid": "r"}]}},
            "2048 bits",
        ),
        ({"jwks_uri": "https://id.example/keys"}, "exactly the members"),
    ],
)
def test_an_issuer_that_is_not_admitted(change: dict[str, object], says: str) -> None:
    changed = document()
    changed["issuers"][0].update(change)
    text = refused(changed)
    assert "`issuers[0]`" in text
    assert says in text


def test_names_are_given_once() -> None:
    changed = document()
    changed["service_keys"].append(deepcopy(changed["service_keys"][0]))
    changed["issuers"].append(deepcopy(changed["issuers"][0]))
    text = refused(changed)
    assert "same `kid`" in text
    assert "same `issuer`" in text


@pytest.mark.parametrize("changed", [{}, {"service_keys": []}, {"service_keys": {}, "issuers": []}])
def test_a_missing_list_is_no_empty_list(changed: dict[str, object]) -> None:
    assert "must be a list" in refused(changed)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"b":{"a":1,"\\u0061":2}}',
        b"NaN",
        b'{"a":-Infinity}',
        b'"\\ud800"',
        b"\xff",
        b"",
        b"[" * 99999,
    ],
)
def test_json_that_two_readers_could_read_differently(data: bytes) -> None:
    with pytest.raises(NotStrict):
        loads(data)


def test_strict_json_reads_what_is_plain() -> None:
    assert loads(b'{"a":[1,1.5,null,true,"\\ud83d\\ude00"]}') == {"a": [1, 1.5, None, True, "\U0001f600"]}


@pytest.mark.parametrize("text", [b"AA==", b"A", b"AB", b"A A", b"A+", b"A/", b"AA\n", "\u00e4".encode(), b"AAA\0"])
def test_base64url_has_one_spelling(text: bytes) -> None:
    with pytest.raises(NotStrict):
        decode_base64url(text)


def test_base64url_goes_there_and_back() -> None:
    for length in range(70):
        data = bytes(range(length))
        assert decode_base64url(encode_base64url(data).encode()) == data


def with_replies(*entries: object, services: tuple[str, ...] = ("app", "batch")) -> dict[str, object]:
    entities = [{"uid": {"type": "Service", "id": each}, "attrs": {}, "parents": []} for each in services]
    people = [{"uid": {"type": "User", "id": "ana"}, "attrs": {}, "parents": []}]
    return {"service_keys": [], "issuers": [], "entities": entities + people, "replies": list(entries)}


def reply(service: object = "app", topic: object = "app-1") -> dict[str, object]:
    return {"service": service, "topic": topic}


def test_each_service_has_its_own_reply_topic() -> None:
    assert parse_credentials(with_replies(reply(), reply("batch", "b"))).replies == {"app": "app-1", "batch": "b"}
    assert parse_credentials({"service_keys": [], "issuers": [], "entities": []}).replies == {}


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([reply("nobody")], "`nobody` is no Service of `entities`; add it there"),
        ([reply("ana")], "`ana` is no Service"),  # a person reads no topic
        ([reply(), reply(topic="app-2")], "has a reply topic already; keep one entry"),
        ([reply(), reply("batch")], "`app-1` is another service's, who would read these answers"),
        ([reply(topic="App")], "cannot name a topic"),
        ([reply(topic="a.b")], "cannot name a topic"),
        ([reply(topic="-a")], "cannot name a topic"),
        ([reply(topic="a" * 64)], "cannot name a topic"),
        ([reply(topic="a\n")], "printable"),
        ([reply(topic=7)], "printable"),
        ([{"service": "app"}], "exactly the members"),
        ([reply() | {"partition": 1}], "exactly the members"),
        (["app"], "must be an object"),
    ],
)
def test_replies_are_strict(entries: list[object], says: str) -> None:
    assert says in refused(with_replies(*entries))


def test_replies_must_be_a_list() -> None:
    assert "`replies` must be a list" in refused({**with_replies(), "replies": {"app": "app"}})
