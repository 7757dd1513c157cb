CREATE TABLE IF NOT EXISTS requests (
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
    schema        LowCardinality(String) COMMENT 'Schema that value was written under, whatever framing; empty for JSON',
    request_id    String               COMMENT 'The producer''s id',
    model         String               COMMENT 'Model asked for',
    purpose       String               COMMENT 'Purpose claimed',
    messages      Array(Tuple(role String, content String)) COMMENT 'The conversation, oldest first',
    documents     Array(Tuple(dataset String, document_id String, fields Array(Tuple(name String, text String)))) COMMENT 'Context, field by field',
    tools         Array(String)        COMMENT 'Tools asked for',
    max_tokens    Nullable(Int32)      COMMENT 'Asked for; null asks for nothing',
    temperature   Nullable(Float64)    COMMENT 'Asked for',
    top_p         Nullable(Float64)    COMMENT 'Asked for',
    top_k         Nullable(Int32)      COMMENT 'Asked for',
    seed          Nullable(Int64)      COMMENT 'Asked for',
    stop          Array(String)        COMMENT 'Asked for',
    stream        Bool                 COMMENT 'Asked for',
    deadline_ms   Nullable(Int64)      COMMENT 'Event time after which no model call starts'
)
ENGINE = MergeTree
PARTITION BY (epoch, partition)
ORDER BY (epoch, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What producers published, poison included';
