-- +goose Up

-- modify "users" table
ALTER TABLE "users" ADD COLUMN "locked_at" timestamptz NULL;

SELECT changelog_track('users', 'user', '{password_hash}', true);
