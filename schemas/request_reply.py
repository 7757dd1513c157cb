"""Names of topics and headers go in, the AsyncAPI 3.0 document of requests and replies comes out: the contract that a
producer in any language builds from.

It is written from the side of an application: it sends requests and receives one reply to each.
"""

import json
from dataclasses import dataclass
from typing import Final

import msgspec
import yaml

from sluicegate.schemas import codec
from sluicegate.schemas.codes import Code, ReleaseOutcome
from sluicegate.schemas.events import (
    Document,
    FieldText,
    Message,
    Parameters,
    ReleaseMade,
    RequestSubmitted,
    Role,
    Source,
)
from sluicegate.schemas.reading import AVRO_TYPES, CONTENT_TYPE, JSON_TYPE
from sluicegate.schemas.strict_json import JsonObject, JsonValue

PATH: Final = "asyncapi/sluicegate.yaml"
AVRO_FORMAT: Final = "application/vnd.apache.avro;version=1.9.0"
JSON_FORMAT: Final = "application/schema+json;version=draft-2020-12"
AVRO_TYPE: Final = "application/avro"
BINDING_VERSION: Final = "0.5.0"
COMPACT_JWS: Final = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What the document names. Addresses are topics with `{tenant}` and `{application}` in place of names."""

    requests: str
    replies: str
    refusals: str
    proof_header: str
    proof_bytes_max: int
    token_header: str
    token_bytes_max: int
    seal_header: str


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as it reads."""


def _written(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _written)


def asyncapi_text(contract: Contract) -> str:
    """The document as YAML."""
    # By way of JSON, or YAML would write what stands in two places as an alias.
    plain: object = json.loads(json.dumps(asyncapi(contract)))
    text: str = yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return f"# Generated from the Avro schemas by `sluicegate schemas write`; do not edit.\n{text}"


def asyncapi(contract: Contract) -> JsonObject:
    """The document. References to schemas are relative to `asyncapi/` beside `avro/` and `json/`."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:sluicegate:requests",
        "info": {
            "title": "Sluicegate requests and replies",
            "version": codec.LATEST[RequestSubmitted].rsplit(".v", 1)[1] + ".0.0",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": AVRO_TYPE,
        "servers": {"kafka": _server()},
        "channels": _channels(contract),
        "operations": {
            "submitRequest": {
                "action": "send",
                "title": "Ask",
                "summary": "Publish one request; exactly one reply to it comes.",
                "channel": {"$ref": "#/channels/requests"},
                "messages": _references("requests", "avro", "confluent", "json"),
                "bindings": {"kafka": {"bindingVersion": BINDING_VERSION}},
                "reply": {
                    "channel": {"$ref": "#/channels/replies"},
                    "messages": _references("replies", "avro", "confluent"),
                },
            },
            "receiveRefusal": {
                "action": "receive",
                "title": "See what could not be proved",
                "summary": "The end of a request whose sender nobody could prove: by partition and request_offset.",
                "channel": {"$ref": "#/channels/refusals"},
                "messages": _references("refusals", "avro", "confluent"),
            },
        },
        "components": {
            "messages": _messages(contract),
            "messageTraits": {"requestHeaders": _request_trait(contract), "replyHeaders": _reply_trait(contract)},
            "securitySchemes": {
                "scram": {"type": "scramSha512", "description": "SASL with SCRAM-SHA-512 over TLS."},
                "plain": {"type": "plain", "description": "SASL PLAIN, over TLS alone."},
                "certificate": {"type": "X509", "description": "Mutual TLS."},
            },
        },
    }


_ABOUT: Final = """\
An application publishes a request and gets exactly one reply: RELEASED with the answer, or DENIED, REFUSED, EXPIRED,
HELD or BLOCKED with a code and what to do.

Who asks is proved by headers, record by record, never by the body. The broker's own authentication (security schemes
below) only says who may write to and read from a topic.

A request is Avro in single-object encoding (Avro 1.12: `c3 01`, the CRC-64-AVRO fingerprint of the schema, 8 bytes
little-endian, the body), Avro in Confluent framing where this installation has a schema registry (`00`, the id of the
schema, 4 bytes big-endian, the body), or JSON with the header `content-type: application/json`. Replies are Avro:
in Confluent framing where there is a registry, else in single-object encoding.

Replies come at least once and in order on a partition: drop repeats by release_id. A reply is matched by request_id, or
by partition and request_offset."""


def _server() -> JsonObject:
    return {
        "host": "{bootstrap}",
        "protocol": "kafka-secure",
        "description": "The brokers of the installation; a request and its reply stand on the same partition number.",
        "variables": {"bootstrap": {"description": "host:port of a broker", "default": "localhost:9092"}},
        "security": [{"$ref": f"#/components/securitySchemes/{each}"} for each in ("scram", "plain", "certificate")],
    }


def _channels(contract: Contract) -> JsonObject:
    tenant: JsonObject = {"description": "The tenant, whose topics these are.", "default": "main"}
    application: JsonObject = {"description": "The reply name that the directory gives the application."}
    requests: JsonObject = {each: _message(f"request{each.title()}") for each in ("avro", "confluent", "json")}
    releases: JsonObject = {each: _message(f"release{each.title()}") for each in ("avro", "confluent")}
    return {
        "requests": {
            "address": contract.requests,
            "title": "Requests",
            "description": "Applications write, the enforcer reads. The record key is the accounting principal as a "
            'Cedar entity uid, such as `User::"ana.support"`, and murmur2 of it chooses the partition, as Kafka\'s '
            "default partitioner does; on another partition the request is denied WRONG_PARTITION.",
            "parameters": {"tenant": tenant},
            "messages": requests,
            "bindings": {
                "kafka": {
                    "topicConfiguration": {"cleanup.policy": ["delete"]},
                    "bindingVersion": BINDING_VERSION,
                }
            },
        },
        "replies": {
            "address": contract.replies,
            "title": "Replies to one application",
            "description": "Only the application may read it. The directory names it, never a request. Key, value and "
            "headers are those of the release, on the partition of the request.",
            "parameters": {"tenant": tenant, "application": application},
            "messages": releases,
            "bindings": {"kafka": {"bindingVersion": BINDING_VERSION}},
        },
        "refusals": {
            "address": contract.refusals,
            "title": "Refusals that name nobody",
            "description": "Where the sender of a request could not be proved, its end comes here: a place (partition, "
            "request_offset) and a code, without request_id, principal or actor.",
            "parameters": {"tenant": tenant},
            "messages": releases,
            "bindings": {"kafka": {"bindingVersion": BINDING_VERSION}},
        },
    }


def _message(name: str) -> JsonObject:
    return {"$ref": f"#/components/messages/{name}"}


def _references(channel: str, *names: str) -> list[JsonValue]:
    return [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names]


def _messages(contract: Contract) -> JsonObject:
    request, release = codec.LATEST[RequestSubmitted], codec.LATEST[ReleaseMade]
    return {
        "requestAvro": _made("Request, Avro in single-object encoding", "request", _avro(request)),
        "requestConfluent": _made("Request, Avro in Confluent framing", "request", _avro(request), framed=True),
        "requestJson": _made(
            "Request, JSON, read strictly: unknown members, duplicate keys and wrong types are refused",
            "request",
            _file(JSON_FORMAT, f"../json/{request}.schema.json"),
            media_type=JSON_TYPE,
            example=_example(contract),
        ),
        "releaseAvro": _made("Reply, Avro in single-object encoding", "reply", _avro(release)),
        "releaseConfluent": _made("Reply, Avro in Confluent framing", "reply", _avro(release), framed=True),
    }


def _made(
    title: str,
    kind: str,
    payload: JsonObject,
    *,
    framed: bool = False,
    media_type: str = AVRO_TYPE,
    example: JsonObject | None = None,
) -> JsonObject:
    binding: JsonObject = {
        "key": {"type": "string", "description": 'The accounting principal, such as `User::"ana.support"`.'}
    }
    if framed:
        binding |= {
            "schemaIdLocation": "payload",
            "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": "TopicNameStrategy",
        }
    shown = example or {
        "name": "The body as JSON would hold it",
        "payload": _plain(EXAMPLE_REQUEST if kind == "request" else EXAMPLE_RELEASE),
    }
    return {
        "title": title,
        "contentType": media_type,
        "correlationId": {
            "description": "The application's own id of the request.",
            "location": "$message.payload#/request_id",
        },
        "traits": [{"$ref": f"#/components/messageTraits/{kind}Headers"}],
        "payload": payload,
        "bindings": {"kafka": {**binding, "bindingVersion": BINDING_VERSION}},
        "examples": [shown],
    }


def _avro(name: str) -> JsonObject:
    return _file(AVRO_FORMAT, f"../avro/{name}.avsc")


def _file(schema_format: str, path: str) -> JsonObject:
    return {"schemaFormat": schema_format, "schema": {"$ref": path}}


def _plain(event: RequestSubmitted | ReleaseMade) -> JsonObject:
    """The event as JSON holds it, without the members that may be left out and are."""
    shown: JsonObject = msgspec.to_builtins(event)
    return {name: value for name, value in shown.items() if value not in (None, [], {})}


def _example(contract: Contract) -> JsonObject:
    return {
        "name": "A question about a ticket",
        "headers": {contract.proof_header: EXAMPLE_PROOF, CONTENT_TYPE: JSON_TYPE},
        "payload": _plain(EXAMPLE_REQUEST),
    }


def _request_trait(contract: Contract) -> JsonObject:
    return {
        "headers": {
            "type": "object",
            "description": "Each header at most once.",
            "required": [contract.proof_header],
            "properties": {
                contract.proof_header: {
                    "type": "string",
                    "pattern": COMPACT_JWS,
                    "maxLength": contract.proof_bytes_max,
                    "description": "Proof of possession after RFC 9449: a compact JWS by the key that the directory "
                    "lists for the application, `typ` sg-proof+jwt, `alg` ES256 or Ed25519, `kid` the key's id; claims "
                    "`iss` (the application), `aud` (urn:sluicegate:<env>:<topic>), `iat` (seconds), `jti` (128 random "
                    "bits in base64url, once), `key` (the record key), `bh` (base64url of SHA-256 of the value) and, "
                    "with a token, `ath` (base64url of SHA-256 of the token).",
                },
                contract.token_header: {
                    "type": "string",
                    "pattern": COMPACT_JWS,
                    "maxLength": contract.token_bytes_max,
                    "description": "The access token of the person on whose behalf the application asks, from an "
                    "issuer that the directory lists and bound to the application.",
                },
                CONTENT_TYPE: {
                    "type": "string",
                    "description": f"{JSON_TYPE} for JSON, with `; charset=utf-8` if you like; "
                    f"{' or '.join(sorted(AVRO_TYPES))}, or no such header, for Avro in either framing.",
                },
            },
        }
    }


def _reply_trait(contract: Contract) -> JsonObject:
    return {
        "headers": {
            "type": "object",
            "required": [contract.seal_header],
            "properties": {
                contract.seal_header: {
                    "type": "string",
                    "description": "The redactor's seal, Avro (SliceSeal) in single-object encoding: the signed "
                    "statement of the slice that the release stands in, and its place and path there. Checking it is "
                    "optional; who does needs no trust in the broker.",
                }
            },
        }
    }


# {"typ":"sg-proof+jwt"}, {"iss":"helpdesk-app"} and no signature: its form alone.
EXAMPLE_PROOF: Final = "eyJ0eXAiOiJzZy1wcm9vZitqd3QifQ.eyJpc3MiOiJoZWxwZGVzay1hcHAifQ.c2lnbmF0dXJl"
EXAMPLE_REQUEST: Final = RequestSubmitted(
    request_id="ticket-4711-1",
    model="smollm2",
    purpose="ticket",
    messages=(Message(role=Role.USER, content="What does the customer want?"),),
    documents=(
        Document(
            dataset="tickets",
            document_id="4711",
            fields=(FieldText(name="text", text="The rear brake squeals since Monday."),),
        ),
    ),
    parameters=Parameters(max_tokens=64, temperature=0.0),
)
EXAMPLE_RELEASE: Final = ReleaseMade(
    release_id="r1-0-42",
    source=Source(offset=42, count=1, digest=bytes(32), timestamp_ms=1_795_176_000_120),
    outcome=ReleaseOutcome.RELEASED,
    code=Code.OK,
    retryable=False,
    request_offset=42,
    request_id=EXAMPLE_REQUEST.request_id,
    decision_id="d1-0-42",
    principal='User::"ana.support"',
    actor='Service::"helpdesk-app"',
    text="The customer wants the rear brake repaired.",
    finish="stop",
)
