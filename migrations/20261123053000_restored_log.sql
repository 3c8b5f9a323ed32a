-- +goose Up

-- A dump that is restored into the database it was taken of finds the server that it knows, and brings the mark of changelog_alive
-- along. What it cannot bring is the table itself, so the mark says in which it was made.
ALTER TABLE changelog_alive ADD COLUMN made_in oid NOT NULL DEFAULT 'changelog_alive'::regclass;
ALTER TABLE changelog_alive ALTER COLUMN made_in DROP DEFAULT;

-- +goose StatementBegin
-- changelog_epoch returns the epoch of the log. It makes a new one where the database is not the one that the log
-- was written in (restored, promoted or copied; the log is emptied then, its transaction ids mean nothing here), and
-- where the server has crashed or the log was restored (it stays, but positions in it are void).
CREATE OR REPLACE FUNCTION changelog_epoch() RETURNS uuid
    LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '5s' AS $$
DECLARE
    here  record;
    found_epoch uuid;
BEGIN
    SELECT c.system_identifier, d.oid AS database,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer AS timeline
      INTO here
      FROM pg_control_system() c, pg_database d WHERE d.datname = current_database();
    FOR attempt IN 1..2 LOOP
        SELECT s.epoch INTO found_epoch
          FROM changelog_state s JOIN changelog_alive a ON a.epoch = s.epoch AND a.made_in = a.tableoid
         WHERE (s.system_identifier, s.timeline, s.database) = (here.system_identifier, here.timeline, here.database);
        IF found_epoch IS NOT NULL THEN
            RETURN found_epoch;
        END IF;
        -- The second look is under the lock: somebody else may have been first.
        PERFORM pg_advisory_xact_lock(hashtext('changelog_epoch'));
    END LOOP;

    found_epoch := gen_random_uuid();
    UPDATE changelog_state s SET epoch = found_epoch
     WHERE (s.system_identifier, s.timeline, s.database) = (here.system_identifier, here.timeline, here.database);
    IF NOT FOUND THEN
        TRUNCATE changes;
        DELETE FROM changelog_state;
        INSERT INTO changelog_state (epoch, system_identifier, timeline, database)
        VALUES (found_epoch, here.system_identifier, here.timeline, here.database);
    END IF;
    DELETE FROM changelog_alive;
    INSERT INTO changelog_alive (epoch, made_in) VALUES (found_epoch, 'changelog_alive'::regclass);
    RETURN found_epoch;
END $$;
-- +goose StatementEnd
