-- +goose Up

-- +goose StatementBegin
-- users_last_administrator keeps the last administrator: the one way to make another is by an administrator, or at the
-- command line. Those who go at once are counted one after another. A database that has none is none of its concern.
CREATE FUNCTION users_last_administrator() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('users_last_administrator', 0));
    IF NOT EXISTS (SELECT FROM users WHERE role = 'admin') THEN
        RAISE EXCEPTION 'the last administrator stays one' USING ERRCODE = 'GS409';
    END IF;
    RETURN NULL;
END $$;
-- +goose StatementEnd

CREATE TRIGGER users_last_administrator_deleted AFTER DELETE ON users
    FOR EACH ROW WHEN (OLD.role = 'admin') EXECUTE FUNCTION users_last_administrator();
CREATE TRIGGER users_last_administrator_demoted AFTER UPDATE OF role ON users
    FOR EACH ROW WHEN (OLD.role = 'admin' AND NEW.role <> 'admin') EXECUTE FUNCTION users_last_administrator();
