-- +goose Up

-- What an account has and holds is what its last entry says, so that a charge adds rows and changes none.
ALTER TABLE accounts DROP COLUMN balance, DROP COLUMN held;
ALTER TABLE accounts RESET (fillfactor);

-- Keys come in the order of their times, so pages of them are looked for, not rows.
DROP INDEX idempotency_keys_by_time;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys USING brin (at) WITH (pages_per_range = 32, autosummarize = on);
