-- +goose Up

-- What users.v1 says of the user, and when that was so: nothing was heard yet.
ALTER TABLE accounts ADD COLUMN profile TEXT NOT NULL DEFAULT 'ACTIVE';
ALTER TABLE accounts ADD COLUMN profile_at BIGINT NOT NULL DEFAULT 0;
