-- +goose Up

-- Times are microseconds since 1970, UTC. Digests are SHA-256.

CREATE TABLE accounts (
    user_id       TEXT   NOT NULL COLLATE "C", -- UUID, canonical
    email         TEXT,             -- normalised; NULL for an imported user
    password_hash TEXT   NOT NULL, -- PHC string; empty for an imported user
    role          TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    version       BIGINT NOT NULL, -- 1 when made, one more with each change that callers see
    created_at    BIGINT NOT NULL,
    updated_at    BIGINT NOT NULL,
    PRIMARY KEY (user_id)
);

CREATE UNIQUE INDEX accounts_email ON accounts (email);
CREATE INDEX accounts_admins ON accounts (state) WHERE role = 'ADMIN';

-- The requests to sign up, from which a repetition or the sweeper goes on.
CREATE TABLE sign_ups (
    request_id    TEXT   NOT NULL,
    user_id       TEXT   NOT NULL COLLATE "C" REFERENCES accounts (user_id) ON DELETE CASCADE,
    email         TEXT   NOT NULL, -- as it was given
    display_name  TEXT   NOT NULL,
    content       BYTEA  NOT NULL, -- digest of what a repetition has in common
    password_hash TEXT   NOT NULL, -- of the password that was given then
    admin_code    BYTEA,             -- digest; NULL for everybody but the first administrator
    began_at      BIGINT NOT NULL,
    finished_at   BIGINT,          -- NULL until the account is active
    PRIMARY KEY (request_id)
);

CREATE UNIQUE INDEX sign_ups_user ON sign_ups (user_id);
CREATE UNIQUE INDEX sign_ups_admin_code ON sign_ups (admin_code) WHERE finished_at IS NULL;
CREATE INDEX sign_ups_unfinished ON sign_ups (user_id, began_at) WHERE finished_at IS NULL;
CREATE INDEX sign_ups_finished ON sign_ups (finished_at) WHERE finished_at IS NOT NULL;

-- The one-time code for the first administrator, while there is none.
CREATE TABLE admin_code (
    id     BIGINT PRIMARY KEY CHECK (id = 1),
    digest BYTEA  NOT NULL
);

CREATE TABLE sessions (
    session_id TEXT   NOT NULL,
    user_id    TEXT   NOT NULL COLLATE "C" REFERENCES accounts (user_id) ON DELETE CASCADE,
    opened_at  BIGINT NOT NULL,
    closed_at  BIGINT, -- NULL while it is open
    PRIMARY KEY (session_id)
);

CREATE INDEX sessions_user ON sessions (user_id);

-- The token of a session that can be used, and those that were: a used one that comes again closes the session.
CREATE TABLE refresh_tokens (
    digest     BYTEA  NOT NULL,
    session_id TEXT   NOT NULL REFERENCES sessions (session_id) ON DELETE CASCADE,
    expires_at BIGINT NOT NULL,
    used_at    BIGINT, -- NULL until it is used
    PRIMARY KEY (digest)
);

CREATE INDEX refresh_tokens_session ON refresh_tokens (session_id);
CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

-- The requests to change a password that were done.
CREATE TABLE password_changes (
    user_id       TEXT   NOT NULL COLLATE "C" REFERENCES accounts (user_id) ON DELETE CASCADE,
    request_id    TEXT   NOT NULL,
    password_hash TEXT   NOT NULL, -- of the new password
    changed_at    BIGINT NOT NULL,
    PRIMARY KEY (user_id, request_id)
);

CREATE INDEX password_changes_time ON password_changes (changed_at);

-- How often somebody tried to sign in with an email that has no account. One write, as the event of a wrong password is.
CREATE TABLE sign_in_misses (
    id     BIGINT PRIMARY KEY CHECK (id = 1),
    misses BIGINT NOT NULL
);

INSERT INTO sign_in_misses (id, misses) VALUES (1, 0);
