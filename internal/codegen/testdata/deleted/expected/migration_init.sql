-- +goose Up

-- create "users" table
CREATE TABLE "users" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "folders" table
CREATE TABLE "folders" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "deleted_at" timestamptz NULL,
  "name" character varying NOT NULL,
  "owner_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "folders_users_folders" FOREIGN KEY ("owner_id") REFERENCES "users" ("id") ON DELETE NO ACTION
);

-- create index "folders_name_key" to table: "folders"
CREATE UNIQUE INDEX "folders_name_key" ON "folders" ("name");

-- create index "folder_owner_id" to table: "folders"
CREATE INDEX "folder_owner_id" ON "folders" ("owner_id");

-- create "pages" table
CREATE TABLE "pages" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "deleted_at" timestamptz NULL,
  "body" text NOT NULL,
  "folder_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "pages_folders_pages" FOREIGN KEY ("folder_id") REFERENCES "folders" ("id") ON DELETE NO ACTION
);

-- create index "page_folder_id" to table: "pages"
CREATE INDEX "page_folder_id" ON "pages" ("folder_id");

SELECT changelog_track('folders', 'folder', '{}', true);

SELECT changelog_track('pages', 'page', '{}', true);

SELECT changelog_track('users', 'user', '{}', true);
