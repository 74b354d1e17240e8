-- +goose Up

-- A transfer that holds money, or releases it, has no entry on the account that the money was to come to. Those that say
-- something are few: an erasure goes through each of them once, by this index, and writes down which accounts it mentions.
CREATE INDEX transfers_said ON transfers (number) WHERE metadata IS NOT NULL AND kind IN ('PENDING', 'VOID');

-- Which transfers mention an account that they have no entry on. Rows are added by erasures.
CREATE TABLE mentions (
    account  BIGINT NOT NULL,
    transfer BIGINT NOT NULL,
    PRIMARY KEY (account, transfer)
);

-- Until which transfer mentions are written down.
ALTER TABLE payments_meta ADD COLUMN mentioned BIGINT NOT NULL DEFAULT 0;
