-- The questions an auditor asks, as plain views: computed from the rows whenever they are read, so never behind them.
-- A record counts where `effective` is 1. One request offset has one effective decision, generation and release; `coverage`
-- says where that is not so. Joins follow `source_offset`, which names the input that a record answers.

CREATE OR REPLACE VIEW asks AS
SELECT
    r.epoch AS epoch, r.partition AS partition, r.offset AS offset, r.timestamp AS timestamp,
    coalesce(d.request_id, nullIf(r.request_id, '')) AS request_id,
    d.principal AS principal, d.actor AS actor,
    coalesce(d.model, nullIf(r.model, '')) AS model,
    coalesce(d.purpose, nullIf(r.purpose, '')) AS purpose,
    if(notEmpty(r.messages), r.messages[-1].content, NULL) AS asked,
    d.verdict AS verdict, d.code AS code, d.check AS check, d.reason AS reason, d.determining AS policies,
    d.decision_id AS decision_id, d.duplicate_of AS duplicate_of,
    d.admitted AS admitted, d.withheld AS withheld,
    g.ran AS ran, s.outcome AS outcome, s.text AS answer, s.release_id AS release_id
FROM (SELECT * FROM requests WHERE effective = 1) AS r
LEFT JOIN (
    SELECT epoch, partition, offset, source_offset, request_id, principal, actor, model, purpose, reason, determining, duplicate_of,
           admitted, withheld, toNullable(toString(verdict)) AS verdict, toNullable(toString(code)) AS code,
           toNullable(check) AS check, toNullable(decision_id) AS decision_id
    FROM decisions WHERE effective = 1
) AS d ON d.epoch = r.epoch AND d.partition = r.partition AND d.source_offset = r.offset
LEFT JOIN (
    SELECT epoch, partition, toNullable(offset) AS offset, source_offset, toNullable(ran) AS ran FROM generations WHERE effective = 1
) AS g ON g.epoch = d.epoch AND g.partition = d.partition AND g.source_offset = d.offset
LEFT JOIN (
    SELECT epoch, partition, source_offset, text, toNullable(toString(outcome)) AS outcome, toNullable(release_id) AS release_id
    FROM releases WHERE effective = 1
) AS s ON s.epoch = g.epoch AND s.partition = g.partition AND s.source_offset = g.offset
COMMENT 'One row a request: who asked which model for what, the verdict and why, and what came of it';

CREATE OR REPLACE VIEW rulings AS
SELECT
    epoch, partition, offset, number, decision_id, source_offset AS request_offset, request_id, time,
    bundle_version, bundle_digest, directory_version, directory_digest,
    ruling.action AS action, ruling.principal AS principal, ruling.resource AS resource, ruling.context AS context,
    ruling.allowed AS allowed, ruling.policies AS policies, ruling.errors AS errors
FROM (SELECT * FROM decisions WHERE effective = 1)
ARRAY JOIN rulings AS ruling, arrayEnumerate(rulings) AS number
COMMENT 'Every Cedar decision behind a verdict (generate, shape, each read): what replay decides again';

CREATE OR REPLACE VIEW field_uses AS
SELECT
    u.epoch AS epoch, u.partition AS partition, u.request_offset AS request_offset, u.request_id AS request_id,
    u.decision_id AS decision_id, u.time AS time, u.principal AS principal, u.field AS field, u.allowed AS allowed,
    multiIf(has(u.admitted, u.field), 'admitted', has(u.withheld, u.field), 'withheld', 'not used') AS use,
    u.policies AS policies, a.outcome AS outcome,
    if(a.outcome = 'RELEASED' AND use = 'admitted', a.principal, NULL) AS seen_by
FROM (
    SELECT
        epoch, partition, source_offset AS request_offset, request_id, decision_id, time, admitted, withheld,
        ruling.principal AS principal, ruling.allowed AS allowed, ruling.policies AS policies,
        replaceRegexpAll(extract(ruling.resource, '^[^"]*"(.*)"$'), '\\\\(.)', '\\1') AS field
    FROM (SELECT * FROM decisions WHERE effective = 1)
    ARRAY JOIN rulings AS ruling
    WHERE ruling.action = 'read'
) AS u
LEFT JOIN asks AS a ON a.epoch = u.epoch AND a.partition = u.partition AND a.offset = u.request_offset
COMMENT 'Every read of a field: who, which field, whether it entered the prompt, by which policies, and who saw the answer';

CREATE OR REPLACE VIEW prompt_materials AS
SELECT
    m.epoch AS epoch, m.partition AS partition, m.request_offset AS request_offset, m.request_id AS request_id,
    m.decision_id AS decision_id, m.time AS time, m.principal AS principal, m.material.source AS source,
    splitByChar(':', m.material.source)[1] AS kind,
    if(position(m.material.source, ':') = 0, '', substring(m.material.source, position(m.material.source, ':') + 1)) AS name,
    m.material.policies AS policies, m.material.bytes AS bytes,
    arrayMap(i -> r.documents[i + 1].document_id, m.material.documents) AS documents,
    a.outcome AS outcome, a.release_id AS release_id, a.answer AS answer
FROM (
    SELECT epoch, partition, source_offset AS request_offset, request_id, decision_id, time, principal, material
    FROM (SELECT * FROM decisions WHERE effective = 1)
    ARRAY JOIN materials AS material
) AS m
LEFT JOIN (SELECT epoch, partition, offset, documents FROM requests WHERE effective = 1) AS r
    ON r.epoch = m.epoch AND r.partition = m.partition AND r.offset = m.request_offset
LEFT JOIN asks AS a ON a.epoch = m.epoch AND a.partition = m.partition AND a.offset = m.request_offset
COMMENT 'Bill of materials: what each prompt was made of, by source, the policies that admitted it, and the answer that rested on it';

CREATE OR REPLACE VIEW directory_versions AS
WITH timed AS (
    SELECT
        epoch, offset, kind, version, timestamp, content, toUnixTimestamp64Milli(timestamp) AS stamp_ms,
        JSONExtractInt(metadata, 'signed', 'x-sluicegate', 'effective_at_ms') AS effective_at_ms,
        toUnixTimestamp(parseDateTimeBestEffortOrZero(JSONExtractString(metadata, 'signed', 'expires'), 'UTC')) * 1000 AS expires_ms,
        max(toUnixTimestamp64Milli(timestamp)) OVER (PARTITION BY epoch ORDER BY offset
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS log_ms
    FROM policy WHERE effective = 1
), started AS (
    SELECT *, max(wanted_ms) OVER (PARTITION BY epoch ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS from_ms
    FROM (
        SELECT *, greatest(effective_at_ms, if(row_number() OVER (PARTITION BY epoch ORDER BY offset) = 1, 0, log_ms + 500 + intDiv(length(content), 500))) AS wanted_ms
        FROM timed WHERE kind = 'DIRECTORY'
    )
), followed AS (
    SELECT *, leadInFrame(from_ms, 1, 9000000000000) OVER (PARTITION BY epoch ORDER BY offset
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next_ms
    FROM started
)
SELECT
    f.epoch AS epoch, f.offset AS offset, f.version AS version, JSONHas(f.content, 'entities') AS whole, f.timestamp AS published,
    fromUnixTimestamp64Milli(toInt64(greatest(f.from_ms, e.begun_ms)), 'UTC') AS valid_from,
    fromUnixTimestamp64Milli(toInt64(greatest(f.from_ms, e.begun_ms, least(f.next_ms, e.ended_ms))), 'UTC') AS valid_until,
    fromUnixTimestamp64Milli(toInt64(f.expires_ms), 'UTC') AS expires
FROM followed AS f
INNER JOIN (
    SELECT epoch, begun_ms, leadInFrame(begun_ms, 1, 9000000000000) OVER (ORDER BY epoch
        ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS ended_ms
    FROM (SELECT epoch, min(toUnixTimestamp64Milli(timestamp)) AS begun_ms FROM policy WHERE value IS NOT NULL GROUP BY epoch)
) AS e ON e.epoch = f.epoch
COMMENT 'Every version of the directory, whole or a change of the one before, and from when until when (event time) it was in force';

CREATE OR REPLACE VIEW directory_entities AS
WITH said AS (
    SELECT epoch, offset, whole,
           arrayJoin(arrayConcat(
               arrayMap(x -> (concat(JSONExtractString(x, 'uid', 'type'), '::"',
                   replaceAll(replaceAll(JSONExtractString(x, 'uid', 'id'), '\\', '\\\\'), '"', '\\"'), '"'), x),
                   if(whole, JSONExtractArrayRaw(content, 'entities'), JSONExtractArrayRaw(content, 'change', 'put'))),
               arrayMap(x -> (x, ''), JSONExtract(content, 'change', 'remove', 'Array(String)'))
           )) AS each
    FROM (SELECT *, JSONHas(content, 'entities') AS whole FROM policy WHERE effective = 1 AND kind = 'DIRECTORY')
), followed AS (
    SELECT said.epoch AS epoch, said.offset AS offset, each.1 AS uid, each.2 AS entity,
           leadInFrame(said.offset, 1, 9223372036854775807) OVER (PARTITION BY said.epoch, each.1 ORDER BY said.offset
               ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS again,
           arrayFirst(x -> x > said.offset, arrayPushBack(wholes, 9223372036854775807)) AS whole_after
    FROM said LEFT JOIN (
        SELECT epoch, arraySort(groupArray(offset)) AS wholes FROM policy
        WHERE effective = 1 AND kind = 'DIRECTORY' AND JSONHas(content, 'entities') GROUP BY epoch
    ) AS w ON w.epoch = said.epoch
)
SELECT
    f.epoch AS epoch, f.uid AS uid, f.entity AS entity,
    arraySort(arrayMap(x -> (JSONExtractString(x, 'type'), JSONExtractString(x, 'id')),
        arrayMap(x -> if(JSONHas(x, '__entity'), JSONExtractRaw(x, '__entity'), x), JSONExtractArrayRaw(f.entity, 'parents')))) AS parents,
    arrayMap(x -> x.2, arrayFilter(x -> x.1 = 'Role', parents)) AS roles,
    toString((parents, arraySort(arrayMap(x -> (x.1, replaceRegexpAll(x.2, '\\{"type":("(?:[^"\\\\]|\\\\.)*"),"id":("(?:[^"\\\\]|\\\\.)*")\\}', '{"id":\\2,"type":\\1}')),
        JSONExtractKeysAndValuesRaw(f.entity, 'attrs'))))) AS said,
    b.version AS from_version, if(u.version = 0, 2147483647, u.version) AS until_version,
    b.valid_from AS valid_from, if(u.version = 0, l.ended, u.valid_from) AS valid_until
FROM followed AS f
INNER JOIN directory_versions AS b ON b.epoch = f.epoch AND b.offset = f.offset
INNER JOIN (SELECT epoch, max(valid_until) AS ended FROM directory_versions GROUP BY epoch) AS l ON l.epoch = f.epoch
LEFT JOIN directory_versions AS u ON u.epoch = f.epoch AND u.offset = least(f.again, f.whole_after)
WHERE f.entity != ''
COMMENT 'Every entity as it ever stood in the directory, from one version until before another; `said` is equal where it says the same';

CREATE OR REPLACE VIEW directory_changes AS
WITH stood AS (
    SELECT *,
        lagInFrame(entity, 1, '') OVER w AS entity_before, lagInFrame(said, 1, '') OVER w AS said_before,
        lagInFrame(roles, 1, []) OVER w AS roles_before,
        lagInFrame(valid_until, 1, toDateTime64(0, 3, 'UTC')) OVER w AS until_before,
        leadInFrame(valid_from, 1, toDateTime64(0, 3, 'UTC')) OVER (PARTITION BY uid ORDER BY valid_from, epoch
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS from_after
    FROM directory_entities WHERE valid_until > valid_from
    WINDOW w AS (PARTITION BY uid ORDER BY valid_from, epoch ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
)
SELECT valid_from AS time, epoch, from_version AS version, uid, if(until_before = valid_from, 'changed', 'added') AS change,
       if(until_before = valid_from, roles_before, []) AS roles_before, roles AS roles_after,
       if(until_before = valid_from, entity_before, '') AS entity_before, entity AS entity_after
FROM stood WHERE until_before != valid_from OR said != said_before
UNION ALL
SELECT valid_until, epoch, until_version, uid, 'removed', roles, [], entity, ''
FROM stood WHERE from_after != valid_until AND valid_until < toDateTime64('2255-01-01 00:00:00', 3, 'UTC')
COMMENT 'Every entity that was added, changed or removed: when that was in force, by which version, and what it said before and after';

CREATE OR REPLACE VIEW roles AS
SELECT epoch, uid AS principal, roles, from_version, until_version, valid_from, valid_until
FROM directory_entities WHERE notEmpty(roles)
COMMENT 'Who had which roles, from one version of the directory until before another, and from when until when';

CREATE OR REPLACE VIEW changes AS
SELECT
    c.epoch AS epoch, c.partition AS partition, c.request_offset AS request_offset, c.request_id AS request_id,
    c.decision_id AS decision_id, c.principal AS principal,
    if(r.until_version > c.directory_version, r.roles, []) AS roles, c.change.1 AS kind, c.change.2 AS name,
    c.change.3 AS detail, c.change.4 AS times, c.change.5 AS policies
FROM (
    SELECT epoch, partition, source_offset AS request_offset, request_id, decision_id, principal,
           coalesce(directory_version, -1) AS directory_version,
           arrayJoin(arrayConcat(
               arrayMap(f -> ('withheld', f, '', toInt64(1), arrayDistinct(arrayFlatten(arrayMap(x -> x.policies,
                   arrayFilter(x -> x.action = 'read' AND endsWith(x.resource, concat('"', f, '"')), rulings))))), withheld),
               arrayMap(a -> ('aliased', a.term_list, a.alias, toInt64(a.count),
                   arrayFlatten(arrayMap(o -> o.policies, arrayFilter(o -> o.name = 'alias', obligations)))), aliases),
               arrayMap(c -> ('clamped', c.name, concat(c.asked, ' to ', c.granted), toInt64(1), c.policies), clamps)
           )) AS change
    FROM decisions WHERE effective = 1
    UNION ALL
    SELECT epoch, partition, coalesce(d.source_offset, -1) AS request_offset, s.request_id, s.decision_id, s.principal,
           coalesce(d.directory_version, -1) AS directory_version,
           arrayJoin(arrayConcat(
               arrayMap(x -> ('redacted', x.redaction_class, concat(x.operator, ' by ', x.rule_id), toInt64(1),
                   arrayFlatten(arrayMap(o -> o.policies, arrayFilter(o -> o.name = 'redact', d.obligations)))),
                   arrayFilter(x -> x.redaction_class != 'UNSUPPORTED', s.redactions)),
               if(s.unsupported > 0, [('unsupported', 'UNSUPPORTED', '', toInt64(s.unsupported),
                   arrayFlatten(arrayMap(o -> o.policies, arrayFilter(o -> o.name = 'numbers', d.obligations))))], [])
           )) AS change
    FROM (SELECT * FROM releases WHERE effective = 1) AS s
    LEFT JOIN (
        SELECT epoch, partition, toNullable(source_offset) AS source_offset, decision_id, directory_version, obligations
        FROM decisions WHERE effective = 1
    ) AS d ON d.epoch = s.epoch AND d.partition = s.partition AND d.decision_id = s.decision_id
) AS c
ASOF LEFT JOIN roles AS r
    ON r.epoch = c.epoch AND r.principal = ifNull(c.principal, '') AND c.directory_version >= r.from_version
COMMENT 'What was withheld, aliased, clamped, redacted or unsupported: one row each, with whom it met and by which policies';

CREATE OR REPLACE VIEW denials_by_policy AS
SELECT
    policy, code, check, count() AS denials, uniqExact(principal) AS principals,
    arraySort(groupUniqArray(10)(ifNull(reason, ''))) AS reasons, arraySort(groupUniqArray(100)(ifNull(request_id, ''))) AS requests
FROM decisions
LEFT ARRAY JOIN determining AS policy
WHERE effective = 1 AND verdict = 'DENY'
GROUP BY policy, code, check
COMMENT 'Denials by the forbid that determined them; an empty policy is a default deny or a check before policy';

CREATE OR REPLACE VIEW dead_letters AS
SELECT
    x.epoch AS epoch, x.topic AS topic, x.partition AS partition, x.offset AS offset, x.timestamp AS timestamp,
    if(x.kind = 'requests', d.decision_id, NULL) AS decision_id, if(x.kind = 'requests', d.code, NULL) AS code,
    x.undecodable AS reason, x.effective AS effective, length(x.value) AS bytes, hex(x.value) AS value_hex, hex(x.key) AS key_hex,
    arrayMap(h -> h.name, x.headers) AS headers
FROM (
    SELECT 'requests' AS kind, epoch, toString(topic) AS topic, partition, offset, timestamp, undecodable, effective, value, key, headers
    FROM requests WHERE undecodable IS NOT NULL
    UNION ALL
    SELECT 'decisions', epoch, toString(topic), partition, offset, timestamp, undecodable, effective, value, key, headers
    FROM decisions WHERE undecodable IS NOT NULL
    UNION ALL
    SELECT 'generations', epoch, toString(topic), partition, offset, timestamp, undecodable, effective, value, key, headers
    FROM generations WHERE undecodable IS NOT NULL
    UNION ALL
    SELECT 'releases', epoch, toString(topic), partition, offset, timestamp, undecodable, effective, value, key, headers
    FROM releases WHERE undecodable IS NOT NULL
    UNION ALL
    SELECT 'policy', epoch, toString(topic), partition, offset, timestamp, undecodable, effective, value, key, headers
    FROM policy WHERE undecodable IS NOT NULL
    UNION ALL
    SELECT 'shadow', epoch, toString(topic), partition, offset, timestamp, undecodable, effective, value, key, headers
    FROM shadow WHERE undecodable IS NOT NULL
) AS x
LEFT JOIN (
    SELECT epoch, partition, source_offset, toNullable(decision_id) AS decision_id, toNullable(toString(code)) AS code
    FROM decisions WHERE effective = 1
) AS d ON d.epoch = x.epoch AND d.partition = x.partition AND d.source_offset = x.offset
COMMENT 'Records that cannot be read, with why and their bytes; for a request also the decision that refused it';

CREATE OR REPLACE VIEW void_records AS
SELECT kind, epoch, partition, offset, timestamp, void_reason AS reason, id, length(value) AS bytes
FROM (
    SELECT 'requests' AS kind, epoch, partition, offset, timestamp, void_reason, request_id AS id, value FROM requests WHERE effective = 0
    UNION ALL SELECT 'decisions', epoch, partition, offset, timestamp, void_reason, decision_id, value FROM decisions WHERE effective = 0
    UNION ALL SELECT 'generations', epoch, partition, offset, timestamp, void_reason, generation_id, value FROM generations WHERE effective = 0
    UNION ALL SELECT 'releases', epoch, partition, offset, timestamp, void_reason, release_id, value FROM releases WHERE effective = 0
    UNION ALL SELECT 'policy', epoch, partition, offset, timestamp, void_reason, toString(kind), value FROM policy WHERE effective = 0
    UNION ALL SELECT 'shadow', epoch, partition, offset, timestamp, void_reason, ifNull(decision_id, ''), value FROM shadow WHERE effective = 0
)
COMMENT 'Records without effect: forged, replayed or late ones, and why; their ids are claims';

CREATE OR REPLACE VIEW shadow_outcomes AS
SELECT
    s.epoch AS epoch, s.partition AS partition, s.offset AS offset, s.source_offset AS decision_offset, s.status AS status,
    s.reason AS reason, s.decision_id AS decision_id, s.request_id AS request_id, s.time AS time, s.bundle_digest AS bundle_digest,
    s.candidate_digest AS candidate_digest, s.candidate_version AS candidate_version, s.difference AS difference,
    s.active_verdict AS active_verdict, s.active_code AS active_code, s.active_determining AS active_policies,
    s.shadow_verdict AS shadow_verdict, s.shadow_code AS shadow_code, s.shadow_determining AS shadow_policies,
    s.newly_readable AS newly_readable, d.principal AS principal, d.actor AS actor, d.model AS model, d.purpose AS purpose,
    if(r.until_version > d.directory_version, r.roles, []) AS roles,
    if(d.decision_id = '', NULL, d.decision_id = s.decision_id AND (s.status != 'DECIDED' OR (ifNull(d.bundle_digest, '') = ifNull(s.bundle_digest, '')
        AND d.verdict = s.active_verdict AND d.code = s.active_code AND d.determining = s.active_determining))) AS as_decided
FROM (SELECT * FROM shadow WHERE effective = 1 AND status != 'PASSED') AS s
LEFT JOIN (
    SELECT epoch, partition, offset, decision_id, principal, actor, model, purpose, bundle_digest, directory_version,
           toString(verdict) AS verdict, toString(code) AS code, determining
    FROM decisions WHERE effective = 1
) AS d ON d.epoch = s.epoch AND d.partition = s.partition AND d.offset = s.source_offset
ASOF LEFT JOIN roles AS r ON r.epoch = d.epoch AND r.principal = ifNull(d.principal, '') AND d.directory_version >= r.from_version
COMMENT 'What a candidate would have said of each decision made while it stood; as_decided: whether it quotes the decision rightly; null where that has not landed';

CREATE OR REPLACE VIEW inferences_without_one_allow AS
SELECT
    g.epoch AS epoch, g.partition AS partition, g.offset AS offset, g.generation_id AS generation_id, g.decision_id AS decision_id,
    g.source_offset AS decision_offset, g.effective AS effective, g.outcome AS outcome, coalesce(d.allows, 0) AS allows
FROM (SELECT * FROM generations WHERE ran) AS g
LEFT JOIN (
    SELECT epoch, partition, offset, toNullable(count()) AS allows, groupArray(decision_id) AS decision_ids
    FROM decisions WHERE effective = 1 AND verdict = 'ALLOW' GROUP BY epoch, partition, offset
) AS d ON d.epoch = g.epoch AND d.partition = g.partition AND d.offset = g.source_offset
WHERE coalesce(d.allows, 0) != 1 OR g.source_count != 1 OR NOT has(d.decision_ids, coalesce(g.decision_id, ''))
COMMENT 'Model runs, effective or only claimed, that do not stand on exactly one effective allow: no row when all is well';

CREATE OR REPLACE VIEW coverage AS
WITH links AS (
    SELECT 'decisions' AS stage, epoch, partition, source_offset AS first, toInt64(source_offset) + source_count AS next
    FROM decisions WHERE effective = 1
    UNION ALL
    SELECT 'generations', epoch, partition, source_offset, toInt64(source_offset) + source_count FROM generations WHERE effective = 1
    UNION ALL
    SELECT 'releases', epoch, partition, source_offset, toInt64(source_offset) + source_count FROM releases WHERE effective = 1
    UNION ALL
    SELECT 'decisions', epoch, partition, max(offset) + 1, max(offset) + 1 FROM requests GROUP BY epoch, partition
    UNION ALL
    SELECT 'generations', epoch, partition, max(offset) + 1, max(offset) + 1 FROM decisions GROUP BY epoch, partition
    UNION ALL
    SELECT 'releases', epoch, partition, max(offset) + 1, max(offset) + 1 FROM generations GROUP BY epoch, partition
)
SELECT
    stage, epoch, partition, if(first > reached, 'no effective record', 'more than one effective record') AS problem,
    least(first, reached) AS first_offset, if(first > reached, first, least(next, reached)) - 1 AS last_offset
FROM (
    SELECT stage, epoch, partition, first, next,
           greatest(0, max(next) OVER (PARTITION BY stage, epoch, partition ORDER BY first, next
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS reached
    FROM links
)
WHERE first > reached OR (first < reached AND next > first)
COMMENT 'Input offsets without exactly one effective output of a stage: no row when all is well and nothing is under way';
