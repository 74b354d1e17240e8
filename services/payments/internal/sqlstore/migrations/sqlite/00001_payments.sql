-- +goose Up

-- One row: what the service keeps beside its data.
CREATE TABLE payments_meta (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    page_key BLOB    NOT NULL CHECK (length(page_key) = 32) -- seals page tokens
) STRICT;

-- One row: the end of all that is numbered. Whoever writes anything below changes it, in the same transaction.
CREATE TABLE head (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    version   INTEGER NOT NULL, -- how often it was changed
    payments  INTEGER NOT NULL,
    accounts  INTEGER NOT NULL,
    transfers INTEGER NOT NULL,
    hash      BLOB    NOT NULL CHECK (length(hash) = 32) -- of the last transfer
) STRICT;
INSERT INTO head VALUES (1, 0, 0, 0, 0, zeroblob(32));

-- Payments in the order in which they were made. Rows are never removed.
CREATE TABLE payments (
    number      INTEGER PRIMARY KEY,
    payment_id  TEXT    NOT NULL UNIQUE,
    order_id    TEXT    NOT NULL,
    customer_id TEXT    NOT NULL,
    amount      INTEGER NOT NULL CHECK (amount > 0), -- minor units, as all amounts
    currency    TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    captured    INTEGER NOT NULL CHECK (captured BETWEEN 0 AND amount),
    refunded    INTEGER NOT NULL CHECK (refunded BETWEEN 0 AND captured),
    capturable  INTEGER NOT NULL CHECK (capturable BETWEEN 0 AND amount - captured),
    hold        INTEGER NOT NULL, -- the pending transfer, 0 for none
    expires_at  INTEGER,          -- microseconds since 1970, UTC, as all times
    decline     TEXT    NOT NULL,
    busy        INTEGER NOT NULL, -- 0 or 1
    metadata    TEXT,             -- a JSON object of texts
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX payments_by_customer ON payments (customer_id, number);

-- Accounts, each with its balances: the sums of its entries.
CREATE TABLE accounts (
    number     INTEGER PRIMARY KEY,
    account_id TEXT    NOT NULL UNIQUE,
    owner      TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    currency   TEXT    NOT NULL,
    overdraft  INTEGER CHECK (overdraft >= 0), -- how far below zero; NULL means without limit
    balance    INTEGER NOT NULL,
    held       INTEGER NOT NULL CHECK (held >= 0),
    metadata   TEXT,
    created_at INTEGER NOT NULL,
    UNIQUE (owner, kind, currency)
) STRICT;

-- The ledger: each transfer with its legs and entries, bound to the one before by its hash. Rows are never changed or removed.
CREATE TABLE transfers (
    number     INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL,
    of         INTEGER NOT NULL, -- the transfer that it settles or reverses, 0 for none
    payment_id TEXT    NOT NULL, -- '' for none
    expires_at INTEGER,
    metadata   TEXT,
    at         INTEGER NOT NULL,
    content    BLOB    NOT NULL, -- legs and entries
    hash       BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE UNIQUE INDEX transfers_reversed ON transfers (of) WHERE kind = 'REVERSAL';

-- The entries again, by account: what moved it, and what it had then.
CREATE TABLE entries (
    account       INTEGER NOT NULL,
    transfer      INTEGER NOT NULL,
    amount        INTEGER NOT NULL,
    held          INTEGER NOT NULL,
    balance_after INTEGER NOT NULL,
    held_after    INTEGER NOT NULL,
    PRIMARY KEY (account, transfer)
) STRICT, WITHOUT ROWID;

-- What is left of pending transfers.
CREATE TABLE pending (
    transfer   INTEGER PRIMARY KEY,
    remaining  INTEGER NOT NULL CHECK (remaining >= 0),
    expires_at INTEGER
) STRICT;
CREATE INDEX pending_by_expiry ON pending (expires_at, transfer) WHERE remaining > 0 AND expires_at IS NOT NULL;

-- What makes a repeated call the same call, with its outcome, or with what a processor has been asked for.
CREATE TABLE idempotency_keys (
    id      BLOB    PRIMARY KEY CHECK (length(id) = 16), -- of caller, method and key
    digest  BLOB    NOT NULL CHECK (length(digest) = 32),
    at      INTEGER NOT NULL,
    payment INTEGER, -- its number
    outcome TEXT    NOT NULL,
    intent  TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (at);
CREATE INDEX idempotency_keys_open ON idempotency_keys (at) WHERE intent IS NOT NULL;

-- +goose StatementBegin
CREATE TRIGGER transfers_are_not_changed BEFORE UPDATE OF number, kind, of, payment_id, expires_at, at, content, hash ON transfers
BEGIN
    SELECT RAISE(ABORT, 'transfers are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER transfers_are_not_removed BEFORE DELETE ON transfers
BEGIN
    SELECT RAISE(ABORT, 'transfers are append-only');
END;
-- +goose StatementEnd
