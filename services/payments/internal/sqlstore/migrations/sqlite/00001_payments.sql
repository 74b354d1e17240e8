-- +goose Up

-- One row: what the service keeps beside its data.
CREATE TABLE payments_meta (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    page_key BLOB    NOT NULL CHECK (length(page_key) = 32) -- seals page tokens
) STRICT;

-- Payments in the order in which they were written. Rows are never removed.
CREATE TABLE payments (
    seq         INTEGER PRIMARY KEY,
    payment_id  TEXT    NOT NULL UNIQUE,
    order_id    TEXT    NOT NULL,
    customer_id TEXT    NOT NULL,
    amount      INTEGER NOT NULL CHECK (amount > 0), -- minor units
    currency    TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    metadata    TEXT    NOT NULL, -- a JSON object of texts
    created_at  INTEGER NOT NULL  -- microseconds since 1970, UTC
) STRICT;
CREATE INDEX payments_by_customer ON payments (customer_id, seq);

-- What makes a repeated call the same call. It is written with the payment, in one transaction.
CREATE TABLE idempotency_keys (
    caller     TEXT    NOT NULL,
    method     TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),
    payment_id TEXT    NOT NULL,
    created_at INTEGER NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (caller, method, key)
) STRICT, WITHOUT ROWID;

-- Accounts, each with its balance: the sum of its entries.
CREATE TABLE accounts (
    seq        INTEGER PRIMARY KEY,
    account_id TEXT    NOT NULL UNIQUE,
    owner      TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    currency   TEXT    NOT NULL,
    balance    INTEGER NOT NULL, -- minor units
    created_at INTEGER NOT NULL, -- microseconds since 1970, UTC
    UNIQUE (owner, kind, currency)
) STRICT;

-- The ledger: the entries of each payment sum to zero.
CREATE TABLE entries (
    payment INTEGER NOT NULL REFERENCES payments (seq),
    leg     INTEGER NOT NULL CHECK (leg >= 1), -- its place in the posting
    account INTEGER NOT NULL REFERENCES accounts (seq),
    amount  INTEGER NOT NULL CHECK (amount <> 0), -- minor units, signed
    PRIMARY KEY (payment, leg)
) STRICT, WITHOUT ROWID;

-- +goose StatementBegin
CREATE TRIGGER entries_are_not_changed BEFORE UPDATE ON entries
BEGIN
    SELECT RAISE(ABORT, 'entries are append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER entries_are_not_removed BEFORE DELETE ON entries
BEGIN
    SELECT RAISE(ABORT, 'entries are append-only');
END;
-- +goose StatementEnd
