-- +goose Up

-- create "users" table
CREATE TABLE "users" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "password_hash" character varying NULL,
  "role" character varying NOT NULL DEFAULT 'user',
  "logins" bigint NOT NULL DEFAULT 0,
  "shade" character varying NOT NULL DEFAULT 'dark',
  "picture" bytea NULL,
  "trace" jsonb NULL,
  PRIMARY KEY ("id")
);

-- create "documents" table
CREATE TABLE "documents" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "editor_id" uuid NULL,
  "author_id" uuid NOT NULL,
  "reviewer_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "documents_users_editor" FOREIGN KEY ("editor_id") REFERENCES "users" ("id") ON DELETE SET NULL,
  CONSTRAINT "documents_users_documents" FOREIGN KEY ("author_id") REFERENCES "users" ("id") ON DELETE NO ACTION,
  CONSTRAINT "documents_users_reviews" FOREIGN KEY ("reviewer_id") REFERENCES "users" ("id") ON DELETE SET NULL
);

-- create index "document_author_id" to table: "documents"
CREATE UNIQUE INDEX "document_author_id" ON "documents" ("author_id");

-- create "document_watchers" table
CREATE TABLE "document_watchers" (
  "document_id" uuid NOT NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("document_id", "user_id"),
  CONSTRAINT "document_watchers_document_id" FOREIGN KEY ("document_id") REFERENCES "documents" ("id") ON DELETE CASCADE,
  CONSTRAINT "document_watchers_user_id" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "document_watchers_user_id_idx" to table: "document_watchers"
CREATE INDEX "document_watchers_user_id_idx" ON "document_watchers" ("user_id");

SELECT changelog_track('documents', 'document', '{}', true);

SELECT changelog_track_join('document_watchers', 'document', 'documents', 'document_id', 'user_id', 'watchers');

SELECT changelog_track('users', 'user', '{password_hash}', true);
