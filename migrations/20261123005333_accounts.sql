-- +goose Up

-- modify "users" table
ALTER TABLE "users" ADD COLUMN "email_verified_at" timestamptz NULL, ADD COLUMN "totp_confirmed_at" timestamptz NULL, ADD COLUMN "password_hash" character varying NULL;

-- create "login_attempts" table
CREATE TABLE "login_attempts" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "account" character varying NOT NULL,
  "user_id" uuid NULL,
  "outcome" character varying NOT NULL,
  "address" character varying NOT NULL,
  "user_agent" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create index "loginattempt_account_created_at" to table: "login_attempts"
CREATE INDEX "loginattempt_account_created_at" ON "login_attempts" ("account", "created_at");

-- create index "loginattempt_created_at" to table: "login_attempts"
CREATE INDEX "loginattempt_created_at" ON "login_attempts" ("created_at");

-- create "login_guards" table
CREATE TABLE "login_guards" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "account" character varying NOT NULL,
  "failures" bigint NOT NULL,
  "window_started_at" timestamptz NOT NULL,
  "next_attempt_at" timestamptz NULL,
  "locked_until" timestamptz NULL,
  PRIMARY KEY ("id")
);

-- create index "login_guards_account_key" to table: "login_guards"
CREATE UNIQUE INDEX "login_guards_account_key" ON "login_guards" ("account");

-- create index "loginguard_window_started_at" to table: "login_guards"
CREATE INDEX "loginguard_window_started_at" ON "login_guards" ("window_started_at");

-- create "authenticators" table
CREATE TABLE "authenticators" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "secret" bytea NOT NULL,
  "confirmed_at" timestamptz NULL,
  "last_step" bigint NOT NULL DEFAULT '0',
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "authenticators_users_authenticators" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "authenticator_user_id" to table: "authenticators"
CREATE UNIQUE INDEX "authenticator_user_id" ON "authenticators" ("user_id");

-- create "backup_codes" table
CREATE TABLE "backup_codes" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "hash" bytea NOT NULL,
  "used_at" timestamptz NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "backup_codes_users_backup_codes" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "backupcode_user_id_hash" to table: "backup_codes"
CREATE UNIQUE INDEX "backupcode_user_id_hash" ON "backup_codes" ("user_id", "hash");

-- create "one_time_tokens" table
CREATE TABLE "one_time_tokens" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "purpose" character varying NOT NULL,
  "hash" bytea NOT NULL,
  "email" character varying NOT NULL,
  "expires_at" timestamptz NOT NULL,
  "used_at" timestamptz NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "one_time_tokens_users_one_time_tokens" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "one_time_tokens_hash_key" to table: "one_time_tokens"
CREATE UNIQUE INDEX "one_time_tokens_hash_key" ON "one_time_tokens" ("hash");

-- create index "onetimetoken_user_id_purpose" to table: "one_time_tokens"
CREATE INDEX "onetimetoken_user_id_purpose" ON "one_time_tokens" ("user_id", "purpose");

-- create index "onetimetoken_expires_at" to table: "one_time_tokens"
CREATE INDEX "onetimetoken_expires_at" ON "one_time_tokens" ("expires_at");

-- create "sessions" table
CREATE TABLE "sessions" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "address" character varying NOT NULL,
  "user_agent" character varying NOT NULL,
  "last_used_at" timestamptz NOT NULL,
  "expires_at" timestamptz NOT NULL,
  "ends_at" timestamptz NOT NULL,
  "revoked_at" timestamptz NULL,
  "revoked_because" character varying NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "sessions_users_sessions" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "session_user_id_expires_at" to table: "sessions"
CREATE INDEX "session_user_id_expires_at" ON "sessions" ("user_id", "expires_at");

-- create index "session_revoked_at" to table: "sessions"
CREATE INDEX "session_revoked_at" ON "sessions" ("revoked_at") WHERE revoked_at IS NOT NULL;

-- create index "session_expires_at" to table: "sessions"
CREATE INDEX "session_expires_at" ON "sessions" ("expires_at");

-- create "refresh_tokens" table
CREATE TABLE "refresh_tokens" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "parent_id" uuid NULL,
  "hash" bytea NOT NULL,
  "salt" bytea NULL,
  "rotated_at" timestamptz NULL,
  "expires_at" timestamptz NOT NULL,
  "session_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "refresh_tokens_sessions_refresh_tokens" FOREIGN KEY ("session_id") REFERENCES "sessions" ("id") ON DELETE CASCADE
);

-- create index "refresh_tokens_parent_id_key" to table: "refresh_tokens"
CREATE UNIQUE INDEX "refresh_tokens_parent_id_key" ON "refresh_tokens" ("parent_id");

-- create index "refresh_tokens_hash_key" to table: "refresh_tokens"
CREATE UNIQUE INDEX "refresh_tokens_hash_key" ON "refresh_tokens" ("hash");

-- create index "refreshtoken_session_id" to table: "refresh_tokens"
CREATE INDEX "refreshtoken_session_id" ON "refresh_tokens" ("session_id");

-- create index "refreshtoken_expires_at" to table: "refresh_tokens"
CREATE INDEX "refreshtoken_expires_at" ON "refresh_tokens" ("expires_at");

-- create "security_events" table
CREATE TABLE "security_events" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "severity" character varying NOT NULL,
  "actor" character varying NULL,
  "address" character varying NULL,
  "user_agent" character varying NULL,
  "request_id" character varying NULL,
  "detail" jsonb NULL,
  "user_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "security_events_users_security_events" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE SET NULL
);

-- create index "securityevent_user_id_created_at_id" to table: "security_events"
CREATE INDEX "securityevent_user_id_created_at_id" ON "security_events" ("user_id", "created_at", "id");

-- create index "securityevent_created_at_id" to table: "security_events"
CREATE INDEX "securityevent_created_at_id" ON "security_events" ("created_at", "id");

-- create index "securityevent_name_created_at" to table: "security_events"
CREATE INDEX "securityevent_name_created_at" ON "security_events" ("name", "created_at");

SELECT changelog_track('authenticators', 'authenticator', '{secret}', false);

SELECT changelog_track('backup_codes', 'backup_code', '{hash}', false);

SELECT changelog_track('login_attempts', 'login_attempt', '{}', false);

SELECT changelog_track('login_guards', 'login_guard', '{}', false);

SELECT changelog_track('one_time_tokens', 'one_time_token', '{hash}', false);

SELECT changelog_track('refresh_tokens', 'refresh_token', '{hash,salt}', false);

SELECT changelog_track('security_events', 'security_event', '{}', true);

SELECT changelog_track('sessions', 'session', '{}', true);

SELECT changelog_track('users', 'user', '{password_hash}', true);
