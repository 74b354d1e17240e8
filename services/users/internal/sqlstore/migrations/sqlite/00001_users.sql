-- +goose Up

-- One row for each user, with the claim of the request that made it: so both exist, or neither. Texts compare byte by byte.
CREATE TABLE users (
    seq            INTEGER PRIMARY KEY, -- the rowid
    user_id        TEXT    NOT NULL, -- UUID, canonical
    email          TEXT    NOT NULL, -- as it was given; empty once erased
    email_key      TEXT,             -- what is unique about it; NULL once erased
    display_name   TEXT    NOT NULL, -- empty once erased
    first_name     TEXT    NOT NULL, -- empty when not told
    last_name      TEXT    NOT NULL, -- empty when not told
    address        TEXT,             -- JSON; NULL when not told
    verified       INTEGER NOT NULL CHECK (verified IN (0, 1)),
    labels         TEXT    NOT NULL, -- a JSON object of texts; user_labels has them again, to be found by
    state          TEXT    NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED', 'DELETED')),
    restores       TEXT    NOT NULL, -- the state that undeleting brings back; empty unless deleted and not erased
    revision       INTEGER NOT NULL, -- 1 when made, one more with each change
    created_at     INTEGER NOT NULL, -- this and all times: microseconds since 1970, UTC
    updated_at     INTEGER NOT NULL,
    deleted_at     INTEGER,
    purge_at       INTEGER,
    erased_at      INTEGER,
    request        BLOB    NOT NULL, -- of whose request made it, and its id: 16 bytes of SHA-256, unique
    request_digest BLOB              -- SHA-256 of what was asked for; NULL once erased
) STRICT;

-- Indexes and not table constraints, so that a later schema can replace one without copying the table.
CREATE UNIQUE INDEX users_user_id ON users (user_id);
CREATE UNIQUE INDEX users_email_key ON users (email_key);
-- Of a range of emails: a count takes these off and reads no rows. Few are deleted, and nobody else has an entry here.
CREATE INDEX users_deleted_email ON users (email_key) WHERE state = 'DELETED' AND email_key IS NOT NULL;
CREATE UNIQUE INDEX users_request ON users (request);

-- The orders in which users are listed, without those who never are. The columns behind user_id spare a count the rows.
CREATE INDEX users_created ON users (created_at, user_id, state, erased_at) WHERE erased_at IS NULL;
CREATE INDEX users_updated ON users (updated_at, user_id, state, erased_at) WHERE erased_at IS NULL;
CREATE INDEX users_display_name ON users (display_name, user_id, state, erased_at) WHERE erased_at IS NULL;
-- Few are not active, and those who are have no entry here.
CREATE INDEX users_state ON users (state, created_at, user_id, erased_at) WHERE state <> 'ACTIVE' AND erased_at IS NULL;
CREATE INDEX users_purge ON users (purge_at, user_id) WHERE purge_at IS NOT NULL;

-- The labels of the users who are not erased, in the order in which users are listed.
CREATE TABLE user_labels (
    key        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    created_at INTEGER NOT NULL, -- of the user, as is the state
    user_id    TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    PRIMARY KEY (key, value, created_at, user_id)
) STRICT, WITHOUT ROWID;

-- The claims of requests that changed a user.
CREATE TABLE requests (
    request_id TEXT    NOT NULL, -- UUID, canonical
    caller     TEXT    NOT NULL, -- whose request it is
    digest     BLOB,             -- SHA-256 of what was asked for; NULL once the user is erased
    user_id    TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (request_id, caller)
) STRICT, WITHOUT ROWID;

CREATE INDEX requests_user_id ON requests (user_id);
CREATE INDEX requests_at ON requests (at);

-- What the store keeps for the service, made when the database is.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
