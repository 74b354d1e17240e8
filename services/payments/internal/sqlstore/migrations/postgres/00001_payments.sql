-- +goose Up

-- One row: what the service keeps beside its data.
CREATE TABLE payments_meta (
    id       BIGINT PRIMARY KEY CHECK (id = 1),
    page_key BYTEA   NOT NULL CHECK (length(page_key) = 32) -- seals page tokens
);

-- One row: the end of all that is numbered. Whoever writes anything below changes it, in the same transaction.
CREATE TABLE head (
    id        BIGINT PRIMARY KEY CHECK (id = 1),
    version   BIGINT NOT NULL, -- how often it was changed
    payments  BIGINT NOT NULL,
    accounts  BIGINT NOT NULL,
    transfers BIGINT NOT NULL,
    hash      BYTEA   NOT NULL CHECK (length(hash) = 32) -- of the last transfer
);
INSERT INTO head VALUES (1, 0, 0, 0, 0, decode(repeat('00', 32), 'hex'));

-- Payments in the order in which they were made. Rows are never removed.
CREATE TABLE payments (
    number      BIGINT PRIMARY KEY,
    payment_id  TEXT    NOT NULL UNIQUE,
    order_id    TEXT    NOT NULL,
    customer_id TEXT    NOT NULL,
    amount      BIGINT NOT NULL CHECK (amount > 0), -- minor units, as all amounts
    currency    TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    captured    BIGINT NOT NULL CHECK (captured BETWEEN 0 AND amount),
    refunded    BIGINT NOT NULL CHECK (refunded BETWEEN 0 AND captured),
    capturable  BIGINT NOT NULL CHECK (capturable BETWEEN 0 AND amount - captured),
    hold        BIGINT NOT NULL, -- the pending transfer, 0 for none
    expires_at  BIGINT,          -- microseconds since 1970, UTC, as all times
    decline     TEXT    NOT NULL,
    busy        BIGINT NOT NULL, -- 0 or 1
    metadata    TEXT,             -- a JSON object of texts
    created_at  BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL
);
CREATE INDEX payments_by_customer ON payments (customer_id, number);

-- Accounts, each with its balances: the sums of its entries.
CREATE TABLE accounts (
    number     BIGINT PRIMARY KEY,
    account_id TEXT    NOT NULL UNIQUE,
    owner      TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    currency   TEXT    NOT NULL,
    overdraft  BIGINT CHECK (overdraft >= 0), -- how far below zero; NULL means without limit
    balance    BIGINT NOT NULL,
    held       BIGINT NOT NULL CHECK (held >= 0),
    metadata   TEXT,
    created_at BIGINT NOT NULL,
    UNIQUE (owner, kind, currency)
) WITH (fillfactor = 70); -- balances change in place

-- The ledger: each transfer with its legs and entries, bound to the one before by its hash. Rows are never changed or removed.
CREATE TABLE transfers (
    number     BIGINT PRIMARY KEY,
    kind       TEXT    NOT NULL,
    of         BIGINT NOT NULL, -- the transfer that it settles or reverses, 0 for none
    payment_id TEXT    NOT NULL, -- '' for none
    expires_at BIGINT,
    metadata   TEXT,
    at         BIGINT NOT NULL,
    content    BYTEA   NOT NULL, -- legs and entries
    hash       BYTEA   NOT NULL CHECK (length(hash) = 32)
);
CREATE UNIQUE INDEX transfers_reversed ON transfers (of) WHERE kind = 'REVERSAL';

-- The entries again, by account: what moved it, and what it had then.
CREATE TABLE entries (
    account       BIGINT NOT NULL,
    transfer      BIGINT NOT NULL,
    amount        BIGINT NOT NULL,
    held          BIGINT NOT NULL,
    balance_after BIGINT NOT NULL,
    held_after    BIGINT NOT NULL,
    PRIMARY KEY (account, transfer)
);

-- What is left of pending transfers.
CREATE TABLE pending (
    transfer   BIGINT PRIMARY KEY,
    remaining  BIGINT NOT NULL CHECK (remaining >= 0),
    expires_at BIGINT
);
CREATE INDEX pending_by_expiry ON pending (expires_at, transfer) WHERE remaining > 0 AND expires_at IS NOT NULL;

-- What makes a repeated call the same call, with its outcome, or with what a processor has been asked for.
CREATE TABLE idempotency_keys (
    id      BYTEA   PRIMARY KEY CHECK (length(id) = 16), -- of caller, method and key
    digest  BYTEA   NOT NULL CHECK (length(digest) = 32),
    at      BIGINT NOT NULL,
    payment BIGINT, -- its number
    outcome TEXT    NOT NULL,
    intent  TEXT
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (at);
CREATE INDEX idempotency_keys_open ON idempotency_keys (at) WHERE intent IS NOT NULL;

-- +goose StatementBegin
CREATE FUNCTION transfers_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'transfers are append-only';
END;
$$;
-- +goose StatementEnd

CREATE TRIGGER transfers_are_not_changed BEFORE UPDATE OF number, kind, of, payment_id, expires_at, at, content, hash ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION transfers_stay();
CREATE TRIGGER transfers_are_not_removed BEFORE DELETE OR TRUNCATE ON transfers FOR EACH STATEMENT EXECUTE FUNCTION transfers_stay();
