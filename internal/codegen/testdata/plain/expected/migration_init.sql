-- +goose Up

-- create "notes" table
CREATE TABLE "notes" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "title" character varying NOT NULL,
  "body" text NOT NULL DEFAULT '',
  PRIMARY KEY ("id")
);

SELECT changelog_track('notes', 'note', '{}', true);
