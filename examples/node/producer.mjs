// Asks questions and prints how each ended, with nothing of Sluicegate; its settings stand in docs/producing.md.
// The request goes as JSON; the release comes as Avro.

import { createHash, createPrivateKey, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { Consumer, Producer, compatibilityPartitioner, stringSerializers } from '@platformatic/kafka'
import avro from 'avsc'
import { CompactSign } from 'jose'

const set = process.env
const requests = `${set.SG_TENANT}.requests`
const released = avro.Type.forSchema(JSON.parse(readFileSync(`${set.SG_SCHEMAS}/ReleaseMade.v1.avsc`, 'utf8')))
const hashed = data => createHash('sha256').update(data).digest('base64url')
const random = () => randomBytes(16).toString('base64url')

// Header `sg-proof`: the service's signature over what it sends, where, when, and for whom.
function proof (value) {
  const claims = {
    iss: set.SG_SERVICE,
    aud: `urn:sluicegate:${set.SG_ENV}:${requests}`,
    iat: Math.floor(Date.now() / 1000),
    jti: random(),
    key: set.SG_PRINCIPAL,
    bh: hashed(value),
    ...(set.SG_TOKEN && { ath: hashed(set.SG_TOKEN) })
  }
  const key = createPrivateKey(readFileSync(set.SG_KEY_FILE))
  const alg = key.asymmetricKeyType === 'ec' ? 'ES256' : 'Ed25519'
  const header = { alg, typ: 'sg-proof+jwt', kid: set.SG_KEY_ID }
  return new CompactSign(Buffer.from(JSON.stringify(claims))).setProtectedHeader(header).sign(key)
}

// The values of one partition from an offset on, for ever, without a consumer group.
async function * tail (consumer, topic, partition, offset) {
  for (;;) {
    const { id: topicId, partitions } = (await consumer.metadata({ topics: [topic] })).topics.get(topic)
    const { leader: node, leaderEpoch: currentLeaderEpoch } = partitions[partition]
    const from = { partition, currentLeaderEpoch, fetchOffset: offset, lastFetchedEpoch: -1, partitionMaxBytes: 2 ** 20 }
    const found = await consumer.fetch({ node, topics: [{ topicId, partitions: [from] }], maxWaitTime: 200 })
    for (const { firstOffset, records } of found.responses[0]?.partitions[0]?.records ?? []) {
      for (const { offsetDelta, value } of records.filter(each => firstOffset + BigInt(each.offsetDelta) >= offset)) {
        offset = firstOffset + BigInt(offsetDelta) + 1n
        yield value
      }
    }
  }
}

const client = { clientId: set.SG_SERVICE, bootstrapBrokers: [set.SG_BOOTSTRAP], autocreateTopics: false }
const consumer = new Consumer({ ...client, groupId: set.SG_SERVICE, minBytes: 1, maxBytes: 2 ** 24 })
// The partition is murmur2's as the Java client has it, which here is not the default.
const producer = new Producer({ ...client, partitioner: compatibilityPartitioner, serializers: stringSerializers })
setTimeout(() => { throw new Error('no release within a minute; ask again with the same request_id') }, 60_000)

const topics = [`${set.SG_TENANT}.replies.${set.SG_REPLIES}`, `${set.SG_TENANT}.refusals`]
const ends = await consumer.listOffsets({ topics })
const [questions, sent, ended] = [process.argv.slice(2), new Set(), new Set()]
let partition // the same for all that we send, because the key is
for (const content of questions) {
  const request = { request_id: random(), model: set.SG_MODEL, purpose: set.SG_PURPOSE, messages: [{ role: 'user', content }] }
  const value = JSON.stringify(request)
  const headers = new Map([['content-type', 'application/json'], ['sg-proof', await proof(value)]])
  if (set.SG_TOKEN) headers.set('sg-token', set.SG_TOKEN)
  const { offsets } = await producer.send({ messages: [{ topic: requests, key: set.SG_PRINCIPAL, value, headers }] })
  partition = offsets[0].partition
  sent.add(request.request_id).add(Number(offsets[0].offset))
}
for (const topic of topics) take(topic, ends.get(topic)[partition])

async function take (topic, offset) {
  for await (const value of tail(consumer, topic, partition, offset)) {
    const release = released.fromBuffer(value.subarray(10)) // behind c3 01 and the schema's fingerprint
    const refused = sent.has(release.request_offset) && release.code !== 'PROOF_REPLAYED'
    if ((!refused && !sent.has(release.request_id)) || ended.has(release.release_id)) continue // a copy comes at least once
    ended.add(release.release_id)
    console.log(release.outcome, release.code, release.text ?? release.reason)
    if (ended.size === questions.length) process.exit()
  }
}
