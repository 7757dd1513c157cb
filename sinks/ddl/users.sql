-- For a ClickHouse server, run once by its administrator: whoever writes the audit can add rows, whoever reads it can only read
-- (readonly = 2, not 1, because the limits of a question are sent along with it).
-- Set the passwords afterwards (ALTER USER ... IDENTIFIED BY ...).
CREATE USER IF NOT EXISTS sluicegate_sink HOST LOCAL;
GRANT SELECT, INSERT ON sluicegate.* TO sluicegate_sink;
CREATE USER IF NOT EXISTS sluicegate_auditor HOST LOCAL SETTINGS readonly = 2;
GRANT SELECT ON sluicegate.* TO sluicegate_auditor;
