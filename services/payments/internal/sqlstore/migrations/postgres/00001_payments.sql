-- +goose Up

-- One row: what the service keeps beside its data.
CREATE TABLE payments_meta (
    id       BIGINT PRIMARY KEY CHECK (id = 1),
    page_key BYTEA  NOT NULL CHECK (length(page_key) = 32) -- seals page tokens
);

-- Payments in the order in which they were written. Rows are never removed.
CREATE TABLE payments (
    seq         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id  TEXT   NOT NULL UNIQUE,
    order_id    TEXT   NOT NULL,
    customer_id TEXT   NOT NULL,
    amount      BIGINT NOT NULL CHECK (amount > 0), -- minor units
    currency    TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    metadata    TEXT   NOT NULL, -- a JSON object of texts
    created_at  BIGINT NOT NULL  -- microseconds since 1970, UTC
);
CREATE INDEX payments_by_customer ON payments (customer_id, seq);

-- What makes a repeated call the same call. It is written with the payment, in one transaction.
CREATE TABLE idempotency_keys (
    caller     TEXT   NOT NULL,
    method     TEXT   NOT NULL,
    key        TEXT   NOT NULL,
    digest     BYTEA  NOT NULL CHECK (length(digest) = 32),
    payment_id TEXT   NOT NULL,
    created_at BIGINT NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (caller, method, key)
);

-- Accounts, each with its balance: the sum of its entries.
CREATE TABLE accounts (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id TEXT   NOT NULL UNIQUE,
    owner      TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    currency   TEXT   NOT NULL,
    balance    BIGINT NOT NULL, -- minor units
    created_at BIGINT NOT NULL, -- microseconds since 1970, UTC
    UNIQUE (owner, kind, currency)
);

-- The ledger: the entries of each payment sum to zero.
CREATE TABLE entries (
    payment BIGINT NOT NULL REFERENCES payments (seq),
    leg     BIGINT NOT NULL CHECK (leg >= 1), -- its place in the posting
    account BIGINT NOT NULL REFERENCES accounts (seq),
    amount  BIGINT NOT NULL CHECK (amount <> 0), -- minor units, signed
    PRIMARY KEY (payment, leg)
);

-- +goose StatementBegin
CREATE FUNCTION entries_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'entries are append-only';
END;
$$;
-- +goose StatementEnd

CREATE TRIGGER entries_are_not_changed BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION entries_stay();
CREATE TRIGGER entries_are_not_truncated BEFORE TRUNCATE ON entries FOR EACH STATEMENT EXECUTE FUNCTION entries_stay();
