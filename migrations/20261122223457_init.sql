-- +goose Up

-- create "users" table
CREATE TABLE "users" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "email" character varying NOT NULL,
  "username" character varying NOT NULL,
  "name" character varying NOT NULL,
  "role" character varying NOT NULL DEFAULT 'user',
  PRIMARY KEY ("id")
);

-- create index "users_email_key" to table: "users"
CREATE UNIQUE INDEX "users_email_key" ON "users" ("email");

-- create index "users_username_key" to table: "users"
CREATE UNIQUE INDEX "users_username_key" ON "users" ("username");

-- create "threads" table
CREATE TABLE "threads" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "subject" character varying NOT NULL,
  "owner_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "threads_users_owned_threads" FOREIGN KEY ("owner_id") REFERENCES "users" ("id") ON DELETE NO ACTION
);

-- create index "thread_owner_id" to table: "threads"
CREATE INDEX "thread_owner_id" ON "threads" ("owner_id");

-- create index "thread_created_at_id" to table: "threads"
CREATE INDEX "thread_created_at_id" ON "threads" ("created_at", "id");

-- create "messages" table
CREATE TABLE "messages" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "body" character varying NOT NULL,
  "thread_id" uuid NOT NULL,
  "author_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "messages_threads_messages" FOREIGN KEY ("thread_id") REFERENCES "threads" ("id") ON DELETE CASCADE,
  CONSTRAINT "messages_users_messages" FOREIGN KEY ("author_id") REFERENCES "users" ("id") ON DELETE NO ACTION
);

-- create index "message_thread_id_id" to table: "messages"
CREATE INDEX "message_thread_id_id" ON "messages" ("thread_id", "id");

-- create index "message_author_id" to table: "messages"
CREATE INDEX "message_author_id" ON "messages" ("author_id");

-- create "thread_members" table
CREATE TABLE "thread_members" (
  "thread_id" uuid NOT NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("thread_id", "user_id"),
  CONSTRAINT "thread_members_thread_id" FOREIGN KEY ("thread_id") REFERENCES "threads" ("id") ON DELETE CASCADE,
  CONSTRAINT "thread_members_user_id" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "thread_members_user_id_idx" to table: "thread_members"
CREATE INDEX "thread_members_user_id_idx" ON "thread_members" ("user_id");

SELECT changelog_track('messages', 'message', '{}', true);

SELECT changelog_track('threads', 'thread', '{}', true);

SELECT changelog_track_join('thread_members', 'thread', 'threads', 'thread_id', 'user_id', 'members');

SELECT changelog_track('users', 'user', '{}', true);
