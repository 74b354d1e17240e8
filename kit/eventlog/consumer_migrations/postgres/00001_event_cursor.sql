-- +goose Up

-- How far each consumer has come.
CREATE TABLE event_cursor (
    name     TEXT   PRIMARY KEY COLLATE "C",
    token    TEXT   NOT NULL,
    version  BIGINT NOT NULL, -- how often it has moved
    moved_at BIGINT NOT NULL  -- microseconds since 1970, UTC
);
