"""Asks questions and prints how each ended, with nothing of Sluicegate; its settings stand in docs/producing.md."""

import asyncio
import io
import json
import os
import sys
import time
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

import fastavro
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from joserfc import jws
from joserfc.jwk import OKPKey

SET, TENANT, TOKEN = os.environ, os.environ["SG_TENANT"], os.environ.get("SG_TOKEN", "").encode()
REQUESTS, REFUSALS, REPLIES = f"{TENANT}.requests", f"{TENANT}.refusals", f"{TENANT}.replies.{SET['SG_REPLIES']}"


def schema(name):
    """The schema, and what stands before a body of it in Avro single-object encoding."""
    found = json.loads((Path(SET["SG_SCHEMAS"]) / f"{name}.v1.avsc").read_text())
    crc = fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(found), "CRC-64-AVRO")
    return fastavro.parse_schema(found), b"\xc3\x01" + bytes.fromhex(crc)


def hashed(data):
    """Base64url of SHA-256, without padding."""
    return urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def proof(value):
    """Header `sg-proof`: the service's signature over what it sends, where, when, and for whom."""
    claims = {"iss": SET["SG_SERVICE"], "aud": f"urn:sluicegate:{SET['SG_ENV']}:{REQUESTS}", "iat": int(time.time())}
    claims |= {"key": SET["SG_PRINCIPAL"], "bh": hashed(value), "jti": token_urlsafe(16)}
    claims |= {"ath": hashed(TOKEN)} if TOKEN else {}
    header = {"alg": "Ed25519", "typ": "sg-proof+jwt", "kid": SET["SG_KEY_ID"]}
    key = OKPKey.import_key(Path(SET["SG_KEY_FILE"]).read_bytes())
    return jws.serialize_compact(header, json.dumps(claims), key, ["Ed25519"]).encode()


async def ask(producer, consumer, questions):
    """Publishes the questions and yields the one terminal release of each."""
    (asked, before), (answered, mark), sent, ended = schema("RequestSubmitted"), schema("ReleaseMade"), set(), set()
    await consumer.seek_to_end()
    for question in questions:
        request = {"request_id": token_urlsafe(16), "model": SET["SG_MODEL"], "purpose": SET["SG_PURPOSE"]}
        request["messages"] = [{"role": "user", "content": question}]
        fastavro.schemaless_writer(body := io.BytesIO(), asked, request)
        value = before + body.getvalue()
        headers = [("sg-proof", proof(value)), *([("sg-token", TOKEN)] if TOKEN else [])]
        placed = await producer.send_and_wait(REQUESTS, value, SET["SG_PRINCIPAL"].encode(), headers=headers)
        sent |= {request["request_id"], (placed.partition, placed.offset)}
    while len(ended) < len(questions):
        record = await consumer.getone()
        if not record.value.startswith(mark):
            continue  # of another version of the schema
        release = fastavro.schemaless_reader(io.BytesIO(record.value[len(mark) :]), answered, None)
        refused = (record.partition, release["request_offset"]) in sent and release["code"] != "PROOF_REPLAYED"
        if (refused or release["request_id"] in sent) and release["release_id"] not in ended:
            ended.add(release["release_id"])  # a copy comes at least once
            yield release


async def main(bootstrap, questions):
    """Prints outcome, code, and the answer or why there is none; gives up after a minute."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(REPLIES, REFUSALS, bootstrap_servers=bootstrap)  # no group: each reads for itself
    async with asyncio.timeout(60), producer, consumer:
        async for each in ask(producer, consumer, questions):
            sys.stdout.write(f"{each['outcome']} {each['code']} {each['text'] or each['reason']}\n")


if __name__ == "__main__":
    asyncio.run(main(SET["SG_BOOTSTRAP"], sys.argv[1:]))
