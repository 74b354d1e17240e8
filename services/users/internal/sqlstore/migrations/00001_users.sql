-- +goose Up

-- One row for each user, with the claim of the request that made it: so both exist, or neither.
CREATE TABLE users (
    seq            INTEGER PRIMARY KEY AUTOINCREMENT, -- the order in which users were committed
    user_id        TEXT    NOT NULL, -- UUID, canonical
    email          TEXT    NOT NULL, -- as it was given
    email_key      TEXT    NOT NULL, -- what is unique about it
    display_name   TEXT    NOT NULL,
    first_name     TEXT    NOT NULL, -- empty when not told
    last_name      TEXT    NOT NULL, -- empty when not told
    state          TEXT    NOT NULL,
    revision       INTEGER NOT NULL, -- 1 when made, one more with each change
    created_at     INTEGER NOT NULL, -- microseconds since 1970, UTC
    updated_at     INTEGER NOT NULL, -- microseconds since 1970, UTC
    created_by     TEXT    NOT NULL, -- whose request made it
    request_id     TEXT    NOT NULL, -- unique for each created_by
    request_digest BLOB    NOT NULL  -- SHA-256 of what was asked for
) STRICT;

-- Indexes and not table constraints, so that a later schema can replace one without copying the table.
CREATE UNIQUE INDEX users_user_id ON users (user_id);
CREATE UNIQUE INDEX users_email_key ON users (email_key);
CREATE UNIQUE INDEX users_request ON users (created_by, request_id);
CREATE UNIQUE INDEX users_position ON users (created_at, user_id);

-- How many rows users has, kept beside them because counting reads them all.
CREATE TABLE user_total (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    total INTEGER NOT NULL
) STRICT;

INSERT INTO user_total (id, total) VALUES (1, 0);

-- What the store keeps for the service, made when the database is.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
