-- +goose Up

-- How far each consumer has come.
CREATE TABLE event_cursor (
    name     TEXT    PRIMARY KEY,
    token    TEXT    NOT NULL,
    version  INTEGER NOT NULL, -- how often it has moved
    moved_at INTEGER NOT NULL  -- microseconds since 1970, UTC
) STRICT;
