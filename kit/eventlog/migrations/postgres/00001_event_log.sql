-- +goose Up

-- The log. Its numbers have no gaps and are in the order in which transactions became visible; event_log_order gives them.
-- A subject is bytes, because it may be any text of Go.
CREATE TABLE event_log (
    seq     BIGINT PRIMARY KEY,
    at      BIGINT NOT NULL, -- microseconds since 1970, UTC
    subject BYTEA  NOT NULL,
    type    TEXT   NOT NULL COLLATE "C",
    payload BYTEA  NOT NULL
);
CREATE INDEX event_log_subject ON event_log (subject, seq);

-- One row: what tokens are made with, and up to which event the log has been trimmed.
CREATE TABLE event_log_meta (
    id        BIGINT PRIMARY KEY CHECK (id = 1),
    epoch     BYTEA  NOT NULL CHECK (length(epoch) = 16),
    token_key BYTEA  NOT NULL CHECK (length(token_key) = 32),
    trimmed   BIGINT NOT NULL DEFAULT 0
);

-- What was appended and has no number yet. Rows leave as fast as they come, so most of the table is what vacuum has not
-- cleaned up: it is looked at through the index on xid alone, whose end is where the new rows are.
CREATE TABLE event_log_inbox (
    xid     XID8   NOT NULL DEFAULT pg_current_xact_id(),
    -- In the order of the INSERTs, over all connections: the sequence must not have a cache.
    arrival BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY (CACHE 1),
    at      BIGINT NOT NULL,
    subject BYTEA  NOT NULL,
    type    TEXT   NOT NULL COLLATE "C",
    payload BYTEA  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000);
CREATE INDEX event_log_inbox_xid ON event_log_inbox (xid);

-- Up to where rows have been moved from the inbox: whenever that was, all that the snapshot sees was. Only the newest row
-- counts. It is a row for each time, because one that changes thousands of times is slow to find while an old snapshot keeps
-- its versions.
CREATE TABLE event_log_move (
    move BIGINT      PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    seen PG_SNAPSHOT NOT NULL
);

-- event_log_lock takes the lock of whoever moves or changes what is in the inbox, until the end of the transaction.
-- +goose StatementBegin
CREATE FUNCTION event_log_lock() RETURNS void LANGUAGE sql AS $$
    SELECT pg_advisory_xact_lock(1668247139, ('event_log'::regclass::oid::bigint - 2147483648)::int)
$$;
-- +goose StatementEnd

-- event_log_order moves what is committed from the inbox to the log, at most that many events, and numbers it. It looks at
-- the rows of transactions that the newest move did not see, or with sweep at all rows. moved is how many events there were,
-- more says that there are more than most. It is for READ COMMITTED, where each statement sees what was committed before it
-- began.
-- +goose StatementBegin
CREATE FUNCTION event_log_order(most INT, sweep BOOLEAN, OUT moved BIGINT, OUT more BOOLEAN)
LANGUAGE plpgsql
-- The plans are few and known: by the index, in this process, without compiling them, and in memory.
SET enable_seqscan = off SET max_parallel_workers_per_gather = 0 SET jit = off SET work_mem = '32MB'
AS $$
DECLARE
    known   PG_SNAPSHOT;
    since   XID8;
    running XID8[];
    now     PG_SNAPSHOT;
    cut     BIGINT;
    head    BIGINT;
    reset   BOOLEAN := false;
BEGIN
    moved := 0;
    more := false;
    SELECT m.seen INTO known FROM event_log_move m ORDER BY m.move DESC LIMIT 1;
    IF known IS NULL THEN
        sweep := true;
    ELSIF pg_snapshot_xmax(pg_current_snapshot()) < pg_snapshot_xmax(known) THEN
        sweep := true; -- the numbers are those of another server, from which this database was restored
        reset := true;
    END IF;
    IF sweep THEN
        known := '1:1:';
    END IF;
    since := pg_snapshot_xmax(known);
    running := ARRAY(SELECT pg_snapshot_xip(known));
    -- What another has moved needs no lock to be found gone.
    IF NOT reset AND NOT EXISTS (SELECT FROM event_log_inbox WHERE xid >= since)
        AND NOT EXISTS (SELECT FROM event_log_inbox WHERE xid = ANY (running)) THEN
        RETURN;
    END IF;
    PERFORM event_log_lock();
    now := pg_current_snapshot();
    SELECT arrival INTO cut FROM event_log_inbox WHERE xid >= since OR xid = ANY (running) ORDER BY arrival OFFSET most LIMIT 1;
    SELECT greatest(m.trimmed, (SELECT max(seq) FROM event_log)) INTO head FROM event_log_meta m WHERE m.id = 1;
    WITH taken AS (
        DELETE FROM event_log_inbox WHERE (xid >= since OR xid = ANY (running)) AND (cut IS NULL OR arrival < cut)
        RETURNING arrival, at, subject, type, payload
    )
    INSERT INTO event_log (seq, at, subject, type, payload)
    SELECT head + row_number() OVER (ORDER BY arrival), at, subject, type, payload FROM taken ORDER BY arrival;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF cut IS NOT NULL THEN
        more := true;
        RETURN;
    END IF;
    INSERT INTO event_log_move (seen) VALUES (now);
    IF sweep THEN
        DELETE FROM event_log_move m WHERE m.move < (SELECT max(n.move) FROM event_log_move n);
    END IF;
END
$$;
-- +goose StatementEnd
