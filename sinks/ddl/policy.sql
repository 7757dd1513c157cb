CREATE TABLE IF NOT EXISTS policy (
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
    kind          LowCardinality(String) COMMENT 'ROOT, KEYS, BUNDLE or DIRECTORY',
    version       Int32                COMMENT 'Version, rising',
    metadata      String               COMMENT 'TUF metadata, JSON',
    content       String               COMMENT 'What the metadata vouches for',
    content_digest String              COMMENT 'sha256: and 64 digits, over content; decisions name it'
)
ENGINE = MergeTree
PARTITION BY (epoch, partition)
ORDER BY (epoch, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'Every version of the root of trust, the keys, the bundle and the directory';
