-- +goose Up

-- create "contracts" table
CREATE TABLE "contracts" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "replaces_id" uuid NULL,
  "sponsor_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "contracts_contracts_replaced_by" FOREIGN KEY ("replaces_id") REFERENCES "contracts" ("id") ON DELETE SET NULL
);

-- create index "contracts_replaces_id_key" to table: "contracts"
CREATE UNIQUE INDEX "contracts_replaces_id_key" ON "contracts" ("replaces_id");

-- create index "contracts_sponsor_id_key" to table: "contracts"
CREATE UNIQUE INDEX "contracts_sponsor_id_key" ON "contracts" ("sponsor_id");

-- create "players" table
CREATE TABLE "players" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "lent_to_id" uuid NULL,
  "mentor_id" uuid NULL,
  "team_id" uuid NOT NULL,
  PRIMARY KEY ("id"),
  CONSTRAINT "players_players_students" FOREIGN KEY ("mentor_id") REFERENCES "players" ("id") ON DELETE SET NULL
);

-- create index "player_team_id" to table: "players"
CREATE INDEX "player_team_id" ON "players" ("team_id");

-- create index "player_lent_to_id" to table: "players"
CREATE INDEX "player_lent_to_id" ON "players" ("lent_to_id");

-- create index "player_mentor_id" to table: "players"
CREATE INDEX "player_mentor_id" ON "players" ("mentor_id");

-- create "sponsors" table
CREATE TABLE "sponsors" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  PRIMARY KEY ("id")
);

-- create "teams" table
CREATE TABLE "teams" (
  "id" uuid NOT NULL DEFAULT (gen_random_uuid()),
  "version" bigint NOT NULL DEFAULT '1',
  "created_at" timestamptz NOT NULL DEFAULT (now()),
  "updated_at" timestamptz NOT NULL DEFAULT (now()),
  "name" character varying NOT NULL,
  "captain_id" uuid NULL,
  PRIMARY KEY ("id")
);

-- create index "teams_name_key" to table: "teams"
CREATE UNIQUE INDEX "teams_name_key" ON "teams" ("name");

-- create "player_friends" table
CREATE TABLE "player_friends" (
  "player_id" uuid NOT NULL,
  "friend_id" uuid NOT NULL,
  PRIMARY KEY ("player_id", "friend_id")
);

-- create index "player_friends_friend_id_idx" to table: "player_friends"
CREATE INDEX "player_friends_friend_id_idx" ON "player_friends" ("friend_id");

-- create "player_follows" table
CREATE TABLE "player_follows" (
  "player_id" uuid NOT NULL,
  "follower_id" uuid NOT NULL,
  PRIMARY KEY ("player_id", "follower_id")
);

-- create index "player_follows_follower_id_idx" to table: "player_follows"
CREATE INDEX "player_follows_follower_id_idx" ON "player_follows" ("follower_id");

-- create "team_sponsors" table
CREATE TABLE "team_sponsors" (
  "team_id" uuid NOT NULL,
  "sponsor_id" uuid NOT NULL,
  PRIMARY KEY ("team_id", "sponsor_id")
);

-- create index "team_sponsors_sponsor_id_idx" to table: "team_sponsors"
CREATE INDEX "team_sponsors_sponsor_id_idx" ON "team_sponsors" ("sponsor_id");

-- modify "contracts" table
ALTER TABLE "contracts" ADD
CONSTRAINT "contracts_sponsors_contract" FOREIGN KEY ("sponsor_id") REFERENCES "sponsors" ("id") ON DELETE NO ACTION;

-- modify "players" table
ALTER TABLE "players" ADD
CONSTRAINT "players_teams_lent_to" FOREIGN KEY ("lent_to_id") REFERENCES "teams" ("id") ON DELETE SET NULL, ADD
CONSTRAINT "players_teams_players" FOREIGN KEY ("team_id") REFERENCES "teams" ("id") ON DELETE CASCADE;

-- modify "teams" table
ALTER TABLE "teams" ADD
CONSTRAINT "teams_players_captain" FOREIGN KEY ("captain_id") REFERENCES "players" ("id") ON DELETE SET NULL;

-- modify "player_friends" table
ALTER TABLE "player_friends" ADD
CONSTRAINT "player_friends_player_id" FOREIGN KEY ("player_id") REFERENCES "players" ("id") ON DELETE CASCADE, ADD
CONSTRAINT "player_friends_friend_id" FOREIGN KEY ("friend_id") REFERENCES "players" ("id") ON DELETE CASCADE;

-- modify "player_follows" table
ALTER TABLE "player_follows" ADD
CONSTRAINT "player_follows_player_id" FOREIGN KEY ("player_id") REFERENCES "players" ("id") ON DELETE CASCADE, ADD
CONSTRAINT "player_follows_follower_id" FOREIGN KEY ("follower_id") REFERENCES "players" ("id") ON DELETE CASCADE;

-- modify "team_sponsors" table
ALTER TABLE "team_sponsors" ADD
CONSTRAINT "team_sponsors_team_id" FOREIGN KEY ("team_id") REFERENCES "teams" ("id") ON DELETE CASCADE, ADD
CONSTRAINT "team_sponsors_sponsor_id" FOREIGN KEY ("sponsor_id") REFERENCES "sponsors" ("id") ON DELETE CASCADE;

SELECT changelog_track('contracts', 'contract', '{}', true);

SELECT changelog_track('players', 'player', '{}', true);

SELECT changelog_track_join('player_friends', 'player', 'players', 'player_id', 'friend_id', 'friends');

SELECT changelog_track_join('player_follows', 'player', 'players', 'player_id', 'follower_id', 'follows');

SELECT changelog_track('sponsors', 'sponsor', '{}', true);

SELECT changelog_track('teams', 'team', '{}', true);

SELECT changelog_track_join('team_sponsors', 'team', 'teams', 'team_id', 'sponsor_id', 'sponsors');
