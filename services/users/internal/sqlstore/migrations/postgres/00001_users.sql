-- +goose Up

-- One row for each user, with the claim of the request that made it: so both exist, or neither. Texts compare byte by byte,
-- whatever the locale of the database.
CREATE TABLE users (
    user_id        UUID     NOT NULL,
    email          TEXT     NOT NULL, -- as it was given; empty once erased
    email_key      TEXT     COLLATE "C", -- what is unique about it; NULL once erased
    display_name   TEXT     COLLATE "C" NOT NULL, -- empty once erased
    first_name     TEXT     COLLATE "C" NOT NULL, -- empty when not told
    last_name      TEXT     COLLATE "C" NOT NULL, -- empty when not told
    address        TEXT,              -- JSON; NULL when not told
    verified       BOOLEAN  NOT NULL,
    labels         JSONB    NOT NULL, -- an object of texts; user_labels has them again, to be found by
    state          TEXT     COLLATE "C" NOT NULL CHECK (state IN ('ACTIVE', 'DISABLED', 'DELETED')),
    restores       TEXT     NOT NULL, -- the state that undeleting brings back; empty unless deleted and not erased
    revision       BIGINT   NOT NULL, -- 1 when made, one more with each change
    created_at     BIGINT   NOT NULL, -- this and all times: microseconds since 1970, UTC
    updated_at     BIGINT   NOT NULL,
    deleted_at     BIGINT,
    purge_at       BIGINT,
    erased_at      BIGINT,
    request        BYTEA    NOT NULL, -- of whose request made it, and its id: 16 bytes of SHA-256, unique
    request_digest BYTEA              -- SHA-256 of what was asked for; NULL once erased
);

-- Indexes and not table constraints, as on SQLite.
CREATE UNIQUE INDEX users_user_id ON users (user_id);
CREATE UNIQUE INDEX users_email_key ON users (email_key) INCLUDE (user_id, state);
CREATE UNIQUE INDEX users_request ON users (request);

-- The orders in which users are listed, without those who never are. The columns behind user_id spare a count the rows.
CREATE INDEX users_created ON users (created_at, user_id) INCLUDE (state, erased_at) WHERE erased_at IS NULL;
CREATE INDEX users_updated ON users (updated_at, user_id) INCLUDE (state, erased_at) WHERE erased_at IS NULL;
CREATE INDEX users_display_name ON users (display_name, user_id) INCLUDE (state, erased_at) WHERE erased_at IS NULL;
-- Few are not active, and those who are have no entry here.
CREATE INDEX users_state ON users (state, created_at, user_id) INCLUDE (erased_at) WHERE state <> 'ACTIVE' AND erased_at IS NULL;
CREATE INDEX users_purge ON users (purge_at, user_id) WHERE purge_at IS NOT NULL;

-- The labels of the users who are not erased, in the order in which users are listed.
CREATE TABLE user_labels (
    key        TEXT   COLLATE "C" NOT NULL,
    value      TEXT   COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL, -- of the user, as is the state
    user_id    UUID   NOT NULL,
    state      TEXT   COLLATE "C" NOT NULL,
    PRIMARY KEY (key, value, created_at, user_id) INCLUDE (state)
);

-- A value belongs to its key: without this the planner takes them for independent.
CREATE STATISTICS user_labels_key_value (mcv, dependencies) ON key, value FROM user_labels;

-- The claims of requests that changed a user.
CREATE TABLE requests (
    request_id UUID   NOT NULL,
    caller     TEXT   COLLATE "C" NOT NULL, -- whose request it is
    digest     BYTEA,                       -- SHA-256 of what was asked for; NULL once the user is erased
    user_id    UUID   NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (request_id, caller)
);

CREATE INDEX requests_user_id ON requests (user_id);
CREATE INDEX requests_at ON requests (at);

-- What the store keeps for the service, made when the database is.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BYTEA NOT NULL
);
