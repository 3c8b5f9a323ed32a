-- +goose Up

-- modify "threads" table
ALTER TABLE "threads" ADD COLUMN "deleted_at" timestamptz NULL;

SELECT changelog_track('threads', 'thread', '{}', true);
