-- For a ClickHouse server, run by its administrator (`sluicegate audit install`): whoever writes the audit can add rows and
-- read them, whoever reads it can only read (readonly = 2, not 1, because the limits of a question are sent along with it).
-- The capitals are replaced: names, salted hashes of passwords (never a password, since servers log statements), and the
-- hosts they may come from. Run again with other passwords, it changes them.
CREATE USER IF NOT EXISTS SINK IDENTIFIED WITH SINK_IDENTITY HOST FROM_HOSTS;
ALTER USER SINK IDENTIFIED WITH SINK_IDENTITY HOST FROM_HOSTS;
GRANT SELECT, INSERT ON sluicegate.* TO SINK;
CREATE USER IF NOT EXISTS AUDITOR IDENTIFIED WITH AUDITOR_IDENTITY HOST FROM_HOSTS SETTINGS readonly = 2;
ALTER USER AUDITOR IDENTIFIED WITH AUDITOR_IDENTITY HOST FROM_HOSTS SETTINGS readonly = 2;
GRANT SELECT ON sluicegate.* TO AUDITOR;
