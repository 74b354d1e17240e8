-- +goose Up

-- What an account has and holds is what its last entry says, so that a charge adds rows and changes none.
ALTER TABLE accounts DROP COLUMN balance, DROP COLUMN held;
ALTER TABLE accounts RESET (fillfactor);
