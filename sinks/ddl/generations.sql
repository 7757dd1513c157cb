CREATE TABLE IF NOT EXISTS generations (
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
    generation_id String               COMMENT 'Derived from the place of the decision',
    source_offset Int64                COMMENT 'First input offset that the record answers',
    source_count  Int32                COMMENT 'How many input offsets it answers; above 1 only for gaps and foreign records',
    source_digest String               COMMENT 'sha256 of the input record, hexadecimal; empty for a range',
    source_time   DateTime64(3, 'UTC') COMMENT 'Stamp of the input record',
    window_first  Int64                COMMENT 'First decision offset without an output when this was appended',
    window_size   Int32                COMMENT 'How far the runner may run ahead',
    outcome       LowCardinality(String) COMMENT 'ANSWERED, DENIED, REFUSED, EXPIRED, BLOCKED or FAILED',
    code          LowCardinality(String) COMMENT 'OK, or why there is no text',
    decision_id   Nullable(String)     COMMENT 'The decision that is carried out; null for foreign records',
    text          Nullable(String)     COMMENT 'What the model produced, not redacted',
    ran           Bool                 COMMENT 'Whether a model ran',
    provider      Nullable(String)     COMMENT 'Execution providers of the session',
    graph_digest  Nullable(String)     COMMENT 'sha256 of the graph',
    tokenizer_digest Nullable(String)  COMMENT 'sha256 of the tokenizer',
    seed          Nullable(Int64)      COMMENT 'Seed used',
    prompt_tokens Nullable(Int32)      COMMENT 'Tokens read',
    output_tokens Nullable(Int32)      COMMENT 'Tokens produced',
    finish        Nullable(String)     COMMENT 'Why the model stopped'
)
ENGINE = MergeTree
PARTITION BY (epoch, partition)
ORDER BY (epoch, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'One effective row for each decision: what the model produced, or why it was not called';
