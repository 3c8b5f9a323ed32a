-- +goose Up

-- create "samples" table
CREATE TABLE "samples" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "label" character varying NOT NULL,
  "note" character varying NULL,
  "unit" character varying NOT NULL DEFAULT 'm',
  "story" text NOT NULL,
  "appendix" text NULL,
  "count" bigint NOT NULL,
  "limit" bigint NULL,
  "attempts" bigint NOT NULL DEFAULT 0,
  "mean" double precision NOT NULL,
  "deviation" double precision NULL,
  "valid" boolean NOT NULL,
  "reviewed" boolean NULL,
  "archived" boolean NOT NULL DEFAULT false,
  "taken_at" timestamptz NOT NULL,
  "reviewed_at" timestamptz NULL,
  "due_at" timestamptz NOT NULL,
  "status" character varying NOT NULL DEFAULT 'draft',
  "grade" character varying NULL,
  "tags" jsonb NOT NULL,
  "aliases" jsonb NULL,
  "readings" jsonb NULL,
  "curve" jsonb NULL,
  "extra" jsonb NULL,
  PRIMARY KEY ("id")
);

-- create index "samples_label_key" to table: "samples"
CREATE UNIQUE INDEX "samples_label_key" ON "samples" ("label");

SELECT changelog_track('samples', 'sample', '{}', true);
