CREATE TABLE IF NOT EXISTS shadow (
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
    source_offset Int64                COMMENT 'First decision offset that the record answers',
    source_count  Int32                COMMENT 'How many of them; above 1 only for a run that nothing was decided in shadow of',
    source_digest String               COMMENT 'sha256 of the decision record, hexadecimal; empty for a range',
    source_time   DateTime64(3, 'UTC') COMMENT 'Stamp of the decision record',
    status        LowCardinality(String) COMMENT 'DECIDED, NOT_ASKED, FAILED or PASSED',
    reason        Nullable(String)     COMMENT 'Why the candidate was not asked',
    decision_id   Nullable(String)     COMMENT 'The decision; null for PASSED',
    request_id    Nullable(String)     COMMENT 'The producer''s id',
    time          Nullable(DateTime64(3, 'UTC')) COMMENT 'Event time T of the decision',
    bundle_digest Nullable(String)     COMMENT 'sha256 of the bundle that decided; see table policy',
    candidate_digest Nullable(String)  COMMENT 'sha256 of the bundle that decided in shadow; see table policy',
    candidate_version Nullable(Int32)  COMMENT 'Version of the candidate',
    active_verdict LowCardinality(String) COMMENT 'What the active bundle said; empty unless DECIDED, as the others here',
    active_code   LowCardinality(String) COMMENT 'Its code',
    active_determining Array(String)   COMMENT 'The policies that determined it',
    active_obligations String          COMMENT 'sha256 of the names and values of its obligations',
    shadow_verdict LowCardinality(String) COMMENT 'What the candidate would have said',
    shadow_code   LowCardinality(String) COMMENT 'Its code',
    shadow_determining Array(String)   COMMENT 'The policies that would have determined it',
    shadow_obligations String          COMMENT 'sha256 of the names and values of its obligations',
    difference    LowCardinality(String) COMMENT 'SAME, TIGHTENED, LOOSENED or OTHER',
    newly_readable Array(String)       COMMENT 'Fields that enter the prompt by the candidate alone'
)
ENGINE = MergeTree
PARTITION BY (epoch, partition)
ORDER BY (epoch, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'What a candidate bundle would have said of decisions made while it stood; no effect rests on it';
