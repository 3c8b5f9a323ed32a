-- +goose Up

-- +goose StatementBegin
-- users_last_administrator keeps the last administrator who may sign in: who is locked can make no other one.
CREATE OR REPLACE FUNCTION users_last_administrator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('users_last_administrator', 0));
    IF NOT EXISTS (SELECT FROM users WHERE role = 'admin' AND locked_at IS NULL) THEN
        RAISE EXCEPTION 'the last administrator stays one' USING ERRCODE = 'GS409';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER users_last_administrator_locked AFTER UPDATE OF locked_at ON users
    FOR EACH ROW WHEN (OLD.role = 'admin' AND OLD.locked_at IS NULL AND NEW.locked_at IS NOT NULL) EXECUTE FUNCTION users_last_administrator();

-- nodes are the processes of the program and how each is, as it says every few seconds, for operators to look at. Nothing depends on it.
CREATE TABLE nodes (
    id uuid PRIMARY KEY, -- another one at each start
    host text NOT NULL,
    role text NOT NULL,  -- all, serve or work
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    problem text NOT NULL,          -- what keeps it from serving; '' for nothing
    sockets integer NOT NULL,       -- WebSockets that are open
    event_streams integer NOT NULL,
    operations integer NOT NULL,    -- that run over WebSockets
    subscriptions integer NOT NULL, -- to records, over either
    lag_ms bigint NOT NULL,         -- age of the last read of the change log
    jobs_running integer NOT NULL
);
