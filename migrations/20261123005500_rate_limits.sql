-- +goose Up

-- rate_limits is the shared memory of internal/ratelimit: for each key, the theoretical arrival time of what was granted
-- last. A row is as good as none once that time is over. UNLOGGED: a crash of the database empties it, and limits begin
-- anew.
CREATE UNLOGGED TABLE rate_limits (
    key text COLLATE "C" PRIMARY KEY,
    tat timestamptz NOT NULL
);
-- For the removal of rows whose time is over.
CREATE INDEX rate_limits_tat_idx ON rate_limits (tat);
