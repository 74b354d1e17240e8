-- +goose Up

-- The log. AUTOINCREMENT, so that a number is not used again after its event was trimmed.
CREATE TABLE event_log (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL, -- microseconds since 1970, UTC
    subject TEXT    NOT NULL,
    type    TEXT    NOT NULL,
    payload BLOB    NOT NULL
) STRICT;

-- One row: what tokens are made with, and up to which event the log has been trimmed.
CREATE TABLE event_log_meta (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    epoch     BLOB    NOT NULL CHECK (length(epoch) = 16),
    token_key BLOB    NOT NULL CHECK (length(token_key) = 32),
    trimmed   INTEGER NOT NULL DEFAULT 0
) STRICT;
