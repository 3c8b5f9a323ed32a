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

-- create "projects" table
CREATE TABLE "projects" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "budget" bigint NULL,
  "archived_at" timestamptz NULL,
  "owner_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "projects_users_owner" FOREIGN KEY ("owner_id") REFERENCES "users" ("id") ON DELETE NO ACTION
);

-- create index "project_owner_id" to table: "projects"
CREATE INDEX "project_owner_id" ON "projects" ("owner_id");

-- create "project_members" table
CREATE TABLE "project_members" (
  "project_id" uuid NOT NULL,
  "user_id" uuid NOT NULL,
  PRIMARY KEY ("project_id", "user_id"),
  CONSTRAINT "project_members_project_id" FOREIGN KEY ("project_id") REFERENCES "projects" ("id") ON DELETE CASCADE,
  CONSTRAINT "project_members_user_id" FOREIGN KEY ("user_id") REFERENCES "users" ("id") ON DELETE CASCADE
);

-- create index "project_members_user_id_idx" to table: "project_members"
CREATE INDEX "project_members_user_id_idx" ON "project_members" ("user_id");

-- create "tasks" table
CREATE TABLE "tasks" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "title" character varying NOT NULL,
  "done" boolean NOT NULL DEFAULT false,
  "project_id" uuid NOT NULL,
  "assignee_id" uuid NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "tasks_projects_tasks" FOREIGN KEY ("project_id") REFERENCES "projects" ("id") ON DELETE CASCADE,
  CONSTRAINT "tasks_users_assignee" FOREIGN KEY ("assignee_id") REFERENCES "users" ("id") ON DELETE SET NULL
);

-- create index "task_project_id" to table: "tasks"
CREATE INDEX "task_project_id" ON "tasks" ("project_id");

-- create index "task_assignee_id" to table: "tasks"
CREATE INDEX "task_assignee_id" ON "tasks" ("assignee_id");

SELECT changelog_track('projects', 'project', '{}', true);

SELECT changelog_track_join('project_members', 'project', 'projects', 'project_id', 'user_id', 'members');

SELECT changelog_track('tasks', 'task', '{}', true);

SELECT changelog_track('users', 'user', '{}', true);
