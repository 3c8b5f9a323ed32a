-- +goose Up

-- create "countries" table
CREATE TABLE "countries" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "settings" table
CREATE TABLE "settings" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "value" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create index "settings_name_key" to table: "settings"
CREATE UNIQUE INDEX "settings_name_key" ON "settings" ("name");

-- create "secrets" table
CREATE TABLE "secrets" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "hash" bytea NOT NULL,
  PRIMARY KEY ("id")
);

-- create "visits" table
CREATE TABLE "visits" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "seen_at" timestamptz NOT NULL,
  "country_id" uuid NOT NULL,
  "secret_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "visits_countries_visits" FOREIGN KEY ("country_id") REFERENCES "countries" ("id") ON DELETE NO ACTION,
  CONSTRAINT "visits_secrets_visits" FOREIGN KEY ("secret_id") REFERENCES "secrets" ("id") ON DELETE SET NULL
);

-- create index "visit_country_id" to table: "visits"
CREATE INDEX "visit_country_id" ON "visits" ("country_id");

SELECT changelog_track('countries', 'country', '{}', true);

SELECT changelog_track('secrets', 'secret', '{hash}', false);

SELECT changelog_track('settings', 'setting', '{}', true);

SELECT changelog_track('visits', 'visit', '{}', true);
