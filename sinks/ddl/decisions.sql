CREATE TABLE IF NOT EXISTS decisions (
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
    decision_id   String               COMMENT 'Derived from the place of the request',
    source_offset Int64                COMMENT 'First input offset that the record answers',
    source_count  Int32                COMMENT 'How many input offsets it answers; above 1 only for gaps and foreign records',
    source_digest String               COMMENT 'sha256 of the input record, hexadecimal; empty for a range',
    source_time   DateTime64(3, 'UTC') COMMENT 'Stamp of the input record',
    time          DateTime64(3, 'UTC') COMMENT 'Event time T',
    verdict       LowCardinality(String) COMMENT 'ALLOW (the grant) or DENY',
    code          LowCardinality(String) COMMENT 'OK, or the code of the first check that failed',
    check         Int32                COMMENT 'Number of that check, 1 to 9; 0 for an allow',
    reason        Nullable(String)     COMMENT 'Reason of the forbids, or of the code',
    request_id    Nullable(String)     COMMENT 'The producer''s id, where it could be read',
    duplicate_of  Nullable(String)     COMMENT 'Decision that the same request id already had',
    principal     Nullable(String)     COMMENT 'Who asks, Cedar uid; null where the identity was not proved',
    actor         Nullable(String)     COMMENT 'Service that carries the request, Cedar uid',
    proof_issuer  Nullable(String)     COMMENT 'Issuer of the spent proof',
    proof_id      Nullable(String)     COMMENT 'Id of the spent proof',
    proof_issued_at Nullable(Int64)    COMMENT 'When the proof was made, seconds',
    proof_key_id  Nullable(String)     COMMENT 'Key of the proof',
    token_issuer  Nullable(String)     COMMENT 'Issuer of the access token, where one was sent',
    token_key_id  Nullable(String)     COMMENT 'Key of the token',
    token_expires_at Nullable(Int64)   COMMENT 'When the token expires, seconds',
    model         Nullable(String)     COMMENT 'Model asked for',
    purpose       Nullable(String)     COMMENT 'Purpose asked for',
    policy_position Nullable(Int64)    COMMENT 'Policy log offset up to which the state was folded',
    root_version  Nullable(Int32)      COMMENT 'Version of the root of trust',
    bundle_version Nullable(Int32)     COMMENT 'Version of the bundle',
    bundle_digest Nullable(String)     COMMENT 'sha256 of the bundle; see table policy',
    directory_version Nullable(Int32)  COMMENT 'Version of the directory',
    directory_digest Nullable(String)  COMMENT 'sha256 of the directory; see table policy',
    determining   Array(String)        COMMENT 'Policies that determined the verdict',
    rulings       Array(Tuple(action String, principal String, resource String, context String, allowed Bool, policies Array(String), errors Array(String))) COMMENT 'Every Cedar decision behind the verdict, in order',
    obligations   Array(Tuple(name String, value String, policies Array(String))) COMMENT 'Merged obligations and the policies they came from',
    prompt        Array(Tuple(role String, segments Array(Tuple(text String, source String)))) COMMENT 'The prompt as the model read it, with sources',
    granted       Array(Tuple(max_tokens Int32, temperature Float64, top_p Float64, top_k Int32, seed Int64, stop Array(String), choices Array(String))) COMMENT 'Parameters of the grant: one, or none in a denial',
    clamps        Array(Tuple(name String, asked String, granted String, policies Array(String))) COMMENT 'Parameters granted tighter than asked',
    admitted      Array(String)        COMMENT 'Fields that entered the prompt',
    withheld      Array(String)        COMMENT 'Fields that were kept out of it',
    aliases       Array(Tuple(term_list String, alias String, count Int32)) COMMENT 'Names that the model read under another name',
    deadline_ms   Nullable(Int64)      COMMENT 'Deadline of the request'
)
ENGINE = MergeTree
PARTITION BY (epoch, partition)
ORDER BY (epoch, partition, offset)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
COMMENT 'One effective row for each request: allow or deny, and everything it was made from';
-- Columns that came with later versions of the event: an audit that is older gets them, empty in its old rows.
ALTER TABLE decisions ADD COLUMN IF NOT EXISTS materials Array(Tuple(source String, policies Array(String), documents Array(Int32), bytes Int64)) COMMENT 'Bill of materials: every byte of the prompt by its source, and the policies that admitted it';
ALTER TABLE decisions ADD COLUMN IF NOT EXISTS prompt_redactions Array(Tuple(source String, redaction_class String, operator String, rule_id String, count Int32)) COMMENT 'Values that redact_prompt took out of messages';
ALTER TABLE decisions ADD COLUMN IF NOT EXISTS prompt_tokens_max Nullable(Int32) COMMENT 'Most tokens that the prompt may have; null for the model''s window alone';
