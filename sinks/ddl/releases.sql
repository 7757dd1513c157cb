CREATE TABLE IF NOT EXISTS releases (
    epoch         Int64                COMMENT 'Epoch of the log; a recreated topic is a new one',
    topic         LowCardinality(String) COMMENT 'Topic as the broker names it',
    partition     Int32                COMMENT 'Partition of the topic',
    offset        Int64                COMMENT 'Offset of the record: with epoch, topic and partition the event key',
    timestamp     DateTime64(3, 'UTC') COMMENT 'Stamp of the record as read, milliseconds',
    key           Nullable(String)     COMMENT 'Record key, bytes',
    value         Nullable(String)     COMMENT 'Record value, bytes as received; the other columns are read from it',
    headers       Array(Tuple(name String, value String)) COMMENT 'Record headers without sg-token; the spent proof stays',
    effective     UInt8                COMMENT '1: the record counts. 0: its seal or its place is wrong',
    void_reason   Nullable(String)     COMMENT 'Why it does not count',
    undecodable   Nullable(String)     COMMENT 'Why value cannot be read; the typed columns are then empty',
    schema        LowCardinality(String) COMMENT 'Schema that value was written under, whatever framing',
    release_id    String               COMMENT 'Derived from the place of the generation',
    source_offset Int64                COMMENT 'First input offset that the record answers',
    source_count  Int32                COMMENT 'How many input offsets it answers; above 1 only for gaps and foreign records',
    source_digest String               COMMENT 'sha256 of the input record, hexadecimal; empty for a range',
    source_time   DateTime64(3, 'UTC') COMMENT 'Stamp of the input record',
    outcome       LowCardinality(String) COMMENT 'RELEASED, DENIED, REFUSED, EXPIRED, HELD or BLOCKED',
    code          LowCardinality(String) COMMENT 'OK, or why there is no answer',
    retryable     Bool                 COMMENT 'Whether the same question may be answered later',
    retry_after_ms Nullable(Int64)     COMMENT 'How long to wait before asking again, milliseconds; null where that does not help',
    request_offset Nullable(Int64)     COMMENT 'Offset of the request; null for foreign records',
    request_id    Nullable(String)     COMMENT 'The producer''s id; null where nobody was proved to have sent the request',
    decision_id   Nullable(String)     COMMENT 'The decision',
    duplicate_of  Nullable(String)     COMMENT 'Earlier decision of the same request id',
    principal     Nullable(String)     COMMENT 'Who asked and may see this',
    actor         Nullable(String)     COMMENT 'Who carried the request',
    reason        Nullable(String)     COMMENT 'Why there is no answer, as far as the requester may know',
    text          Nullable(String)     COMMENT 'The answer after redaction',
    finish        Nullable(String)     COMMENT 'Why the model stopped',
    withheld      Array(String)        COMMENT 'Fields that were kept out of the prompt',
    redactions    Array(Tuple(redaction_class String, start Int32, end Int32, rule_id String, operator String)) COMMENT 'Spans not released as they stood, never their text',
    unsupported   Int32                COMMENT 'Numbers and identifiers that stand in no admitted text',
    clamps        Array(Tuple(name String, asked String, granted String, policies Array(String))) COMMENT 'Parameters granted tighter than asked',
    rules_digest  Nullable(String)     COMMENT 'sha256 of the redaction rules'
)
ENGINE = MergeTree
PARTITION BY (epoch, partition)
ORDER BY (epoch, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'One effective row for each generation: what the requester saw';
