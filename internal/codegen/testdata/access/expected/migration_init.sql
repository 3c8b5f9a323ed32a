-- +goose Up

-- create "drafts" table
CREATE TABLE "drafts" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "text" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "notices" table
CREATE TABLE "notices" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "text" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "teams" table
CREATE TABLE "teams" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  PRIMARY KEY ("id")
);

-- create "projects" table
CREATE TABLE "projects" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "lead_team_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "projects_teams_projects" FOREIGN KEY ("lead_team_id") REFERENCES "teams" ("id") ON DELETE NO ACTION
);

-- create index "project_lead_team_id" to table: "projects"
CREATE INDEX "project_lead_team_id" ON "projects" ("lead_team_id");

-- create "users" table
CREATE TABLE "users" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "email" character varying NOT NULL,
  "logins" bigint NOT NULL DEFAULT 0,
  "role" character varying NOT NULL DEFAULT 'user',
  "tags" jsonb NULL,
  "home_team_id" uuid NULL,
  "manager_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "users_teams_home_people" FOREIGN KEY ("home_team_id") REFERENCES "teams" ("id") ON DELETE SET NULL,
  CONSTRAINT "users_users_staff" FOREIGN KEY ("manager_id") REFERENCES "users" ("id") ON DELETE SET NULL
);

-- create index "users_email_key" to table: "users"
CREATE UNIQUE INDEX "users_email_key" ON "users" ("email");

-- create index "user_manager_id" to table: "users"
CREATE INDEX "user_manager_id" ON "users" ("manager_id");

-- create index "user_home_team_id" to table: "users"
CREATE INDEX "user_home_team_id" ON "users" ("home_team_id");

-- create "comments" table
CREATE TABLE "comments" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "body" character varying NOT NULL,
  "address" character varying NULL,
  "project_id" uuid NOT NULL,
  "author_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "comments_projects_comments" FOREIGN KEY ("project_id") REFERENCES "projects" ("id") ON DELETE NO ACTION,
  CONSTRAINT "comments_users_comments" FOREIGN KEY ("author_id") REFERENCES "users" ("id") ON DELETE SET NULL
);

-- create index "comment_project_id" to table: "comments"
CREATE INDEX "comment_project_id" ON "comments" ("project_id");

-- create index "comment_author_id" to table: "comments"
CREATE INDEX "comment_author_id" ON "comments" ("author_id");

-- create "team_board_members" table
CREATE TABLE "team_board_members" (
  "team_id" uuid NOT NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("team_id", "user_id"),
  CONSTRAINT "team_board_members_team_id" FOREIGN KEY ("team_id") REFERENCES "teams" ("id") ON DELETE CASCADE,
  CONSTRAINT "team_board_members_user_id" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "team_board_members_user_id_idx" to table: "team_board_members"
CREATE INDEX "team_board_members_user_id_idx" ON "team_board_members" ("user_id");

-- create "user_friends" table
CREATE TABLE "user_friends" (
  "user_id" uuid NOT NULL,
  "friend_id" uuid NOT NULL,
  PRIMARY KEY ("user_id", "friend_id"),
  CONSTRAINT "user_friends_user_id" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE,
  CONSTRAINT "user_friends_friend_id" FOREIGN KEY ("friend_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "user_friends_friend_id_idx" to table: "user_friends"
CREATE INDEX "user_friends_friend_id_idx" ON "user_friends" ("friend_id");

-- create "user_watching" table
CREATE TABLE "user_watching" (
  "user_id" uuid NOT NULL,
  "project_id" uuid NOT NULL,
  PRIMARY KEY ("user_id", "project_id"),
  CONSTRAINT "user_watching_user_id" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE,
  CONSTRAINT "user_watching_project_id" FOREIGN KEY ("project_id") REFERENCES "projects" ("id") ON DELETE CASCADE
);

-- create index "user_watching_project_id_idx" to table: "user_watching"
CREATE INDEX "user_watching_project_id_idx" ON "user_watching" ("project_id");

SELECT changelog_track('comments', 'comment', '{}', true);

SELECT changelog_track('drafts', 'draft', '{}', true);

SELECT changelog_track('notices', 'notice', '{}', true);

SELECT changelog_track('projects', 'project', '{}', true);

SELECT changelog_track('teams', 'team', '{}', true);

SELECT changelog_track_join('team_board_members', 'team', 'teams', 'team_id', 'user_id', 'boardMembers');

SELECT changelog_track('users', 'user', '{}', true);

SELECT changelog_track_join('user_friends', 'user', 'users', 'user_id', 'friend_id', 'friends');

SELECT changelog_track_join('user_watching', 'user', 'users', 'user_id', 'project_id', 'watching');
