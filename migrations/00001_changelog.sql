-- +goose Up

-- The change log: one row for each committed change of a tracked record, written by triggers in the transaction
-- of the change itself. Package changelog reads it, and its doc says what is guaranteed.

-- +goose StatementBegin
-- changelog_slot is the partition of a moment: its day (UTC) modulo 9. It is inlined, which takes being as stable as date_part.
CREATE FUNCTION changelog_slot(at timestamptz) RETURNS smallint
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (floor(date_part('epoch', at) / 86400)::integer % 9)::smallint
$$;
-- +goose StatementEnd

CREATE SEQUENCE changes_seq CACHE 1;

CREATE TABLE changes (
    seq     bigint      NOT NULL DEFAULT nextval('changes_seq'), -- drawn under the record's lock: ordered within a record
    xid     xid8        NOT NULL DEFAULT pg_current_xact_id(),
    slot    smallint    NOT NULL DEFAULT changelog_slot(clock_timestamp()),
    entity  text        NOT NULL,
    id      uuid,                                                -- null for op R
    version bigint,                                              -- after the change; a delete's is above all that was seen
    op      "char"      NOT NULL,                                -- I(nsert), U(pdate), D(elete), R(esync: all rows at once)
    fields  text[]      NOT NULL DEFAULT '{}',                   -- names of the columns and edges that the change touched
    old     jsonb,                                               -- what those were before; the whole row for op D
    actor   text                 DEFAULT nullif(current_setting('godstack.actor', true), ''),
    at      timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY LIST (slot);

ALTER SEQUENCE changes_seq OWNED BY changes.seq;

CREATE INDEX changes_xid_seq ON changes (xid, seq);
CREATE INDEX changes_id_version ON changes (id, version);

-- One partition is written, seven are kept and one is emptied. All are made here, so that none can be missing.
CREATE TABLE changes_0 PARTITION OF changes FOR VALUES IN (0);
CREATE TABLE changes_1 PARTITION OF changes FOR VALUES IN (1);
CREATE TABLE changes_2 PARTITION OF changes FOR VALUES IN (2);
CREATE TABLE changes_3 PARTITION OF changes FOR VALUES IN (3);
CREATE TABLE changes_4 PARTITION OF changes FOR VALUES IN (4);
CREATE TABLE changes_5 PARTITION OF changes FOR VALUES IN (5);
CREATE TABLE changes_6 PARTITION OF changes FOR VALUES IN (6);
CREATE TABLE changes_7 PARTITION OF changes FOR VALUES IN (7);
CREATE TABLE changes_8 PARTITION OF changes FOR VALUES IN (8);

-- changelog_state is one row: which log this is. Positions in it mean nothing in a log of another epoch.
CREATE TABLE changelog_state (
    one               boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch             uuid    NOT NULL,
    system_identifier bigint  NOT NULL,
    timeline          integer NOT NULL,
    database          oid     NOT NULL,
    expired           xid8    NOT NULL DEFAULT '0' -- the highest transaction whose changes retention has removed
);

-- changelog_alive holds the epoch again, and loses it when the server crashes: then transaction ids that readers
-- have seen (of transactions that never reached the disk) are given out a second time.
CREATE UNLOGGED TABLE changelog_alive (epoch uuid NOT NULL);

-- +goose StatementBegin
-- changelog_epoch returns the epoch of the log. It makes a new one where the database is not the one that the log
-- was written in (restored, promoted or copied; the log is emptied then, its transaction ids mean nothing here), and
-- where the server has crashed (the log stays, but positions in it are void).
CREATE FUNCTION changelog_epoch() RETURNS uuid
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
          FROM changelog_state s JOIN changelog_alive a ON a.epoch = s.epoch
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
    INSERT INTO changelog_alive VALUES (found_epoch);
    RETURN found_epoch;
END $$;
-- +goose StatementEnd

SELECT changelog_epoch();

-- +goose StatementBegin
-- changelog_expire removes the days before the last seven and returns how many partitions it emptied. One that is
-- in use for longer than the lock_timeout is left for the next time, and so is all while another session expires.
CREATE FUNCTION changelog_expire(today date DEFAULT (clock_timestamp() AT TIME ZONE 'UTC')::date) RETURNS integer
    LANGUAGE plpgsql SET search_path FROM CURRENT SET lock_timeout = '200ms' AS $$
DECLARE
    emptied integer := 0;
    newest  record;
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('changelog_expire')) THEN
        RETURN 0;
    END IF;
    FOR n IN 0..8 LOOP
        SELECT c.xid, c.at INTO newest FROM changes c WHERE c.slot = n ORDER BY c.xid DESC, c.seq DESC LIMIT 1;
        CONTINUE WHEN newest IS NULL OR (newest.at AT TIME ZONE 'UTC')::date >= today - 7;
        BEGIN
            EXECUTE format('LOCK TABLE changes_%s IN ACCESS EXCLUSIVE MODE', n);
            -- Only now can nobody's late commit add to it.
            SELECT c.xid, c.at INTO newest FROM changes c WHERE c.slot = n ORDER BY c.xid DESC, c.seq DESC LIMIT 1;
            CONTINUE WHEN (newest.at AT TIME ZONE 'UTC')::date >= today - 7;
            UPDATE changelog_state s SET expired = newest.xid WHERE s.expired < newest.xid;
            EXECUTE format('TRUNCATE changes_%s', n);
            emptied := emptied + 1;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN emptied;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_version numbers the versions of a record, whatever the statement says.
CREATE FUNCTION changelog_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.version := 1;
    ELSE
        NEW.version := OLD.version + 1;
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_version_at is changelog_version for a table with updated_at.
CREATE FUNCTION changelog_version_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        NEW.version := 1;
    ELSE
        NEW.version := OLD.version + 1;
        IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
            NEW.updated_at := clock_timestamp();
        END IF;
    END IF;
    RETURN NEW;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_fixed_id refuses another id for a record: whoever holds the old one would never hear of it again.
CREATE FUNCTION changelog_fixed_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the id of a record in % cannot change', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_resync logs that all records of the entity in the trigger's argument may have changed.
CREATE FUNCTION changelog_resync() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO changes (entity, op) VALUES (TG_ARGV[0], 'R');
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_net joins what two steps of one transaction did to an edge, {"added": [ids], "removed": [ids]} each,
-- so that before = after - added + removed holds for the whole.
CREATE FUNCTION changelog_net(first jsonb, second jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object(
        'added', (coalesce(first->'added', '[]') - ARRAY(SELECT jsonb_array_elements_text(second->'removed')))
            || ((second->'added') - ARRAY(SELECT jsonb_array_elements_text(first->'removed'))),
        'removed', (coalesce(first->'removed', '[]') - ARRAY(SELECT jsonb_array_elements_text(second->'added')))
            || ((second->'removed') - ARRAY(SELECT jsonb_array_elements_text(first->'added'))))
$$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_link adds links, {edge: {"added": [ids], "removed": [ids]}}, to the fields and old of a row of the log.
-- A record that is new has no before, one that is deleted no changed fields.
CREATE FUNCTION changelog_link(op "char", links jsonb, INOUT fields text[], INOUT old jsonb) LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
DECLARE
    edge record;
BEGIN
    FOR edge IN SELECT e.key, e.value FROM jsonb_each(links) e LOOP
        IF op <> 'D' AND edge.key <> ALL (fields) THEN
            fields := fields || edge.key;
        END IF;
        IF op <> 'I' THEN
            old := coalesce(old, '{}') || jsonb_build_object(edge.key, changelog_net(old->edge.key, edge.value));
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_waiting is changelog_link with the links that wait for the record's row, if there are.
CREATE FUNCTION changelog_waiting(record text, op "char", INOUT fields text[], INOUT old jsonb) LANGUAGE plpgsql
    SET search_path FROM CURRENT AS $$
DECLARE
    waiting CONSTANT jsonb := current_setting('godstack.links')::jsonb;
BEGIN
    IF waiting ? record THEN
        SELECT l.fields, l.old INTO fields, old FROM changelog_link(op, waiting->record, fields, old) l;
        PERFORM set_config('godstack.links', (waiting - record)::text, true);
    END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_links is the trigger of join tables: (entity, owning table, its column here, the other column, edge).
--
-- The owner's row of the log may be written already in this transaction (the links are added to it), may be about to
-- be written when the triggers queued before it have run (as in one cascade that reaches the owner on two ways), or
-- is written now by raising the owner's version. In the latter two cases the links wait in the setting godstack.links
-- for the trigger that writes the row.
CREATE FUNCTION changelog_links() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    kind    CONSTANT text := TG_ARGV[0];
    tbl     CONSTANT text := TG_ARGV[1];
    edge    CONSTANT text := TG_ARGV[4];
    this    CONSTANT xid8 := pg_current_xact_id();
    -- Rows of this transaction are in these two, unless it is older than a day; the log has two rows for it then.
    slot_a  CONSTANT smallint := changelog_slot(now());
    slot_b  CONSTANT smallint := changelog_slot(clock_timestamp());
    source  text;
    link    record;
    owner   record;
    entry   record;
    waiting jsonb;
BEGIN
    source := concat_ws(' UNION ALL ',
        CASE WHEN TG_OP <> 'DELETE' THEN format('SELECT %I, %I, 1 FROM linked', TG_ARGV[2], TG_ARGV[3]) END,
        CASE WHEN TG_OP <> 'INSERT' THEN format('SELECT %I, %I, -1 FROM unlinked', TG_ARGV[2], TG_ARGV[3]) END);
    FOR link IN EXECUTE format($sql$
        SELECT owner AS id,
               jsonb_build_object('added', coalesce(jsonb_agg(other ORDER BY other) FILTER (WHERE n > 0), '[]'),
                                  'removed', coalesce(jsonb_agg(other ORDER BY other) FILTER (WHERE n < 0), '[]')) AS ends
          FROM (SELECT owner, other, sum(n) AS n FROM (%s) s (owner, other, n) GROUP BY owner, other) s
         WHERE n <> 0 AND owner IS NOT NULL AND other IS NOT NULL GROUP BY owner ORDER BY owner
    $sql$, source) LOOP
        EXECUTE format('SELECT version, age(xmin) <= 0 AS young FROM %s WHERE id = $1 FOR NO KEY UPDATE', tbl)
           INTO owner USING link.id;
        -- "IS NOT DISTINCT FROM" keeps the planner from walking through all that this transaction has written.
        IF owner.version IS NULL THEN
            SELECT c.slot, c.seq INTO entry FROM changes c
             WHERE c.id = link.id AND c.entity = kind AND c.slot IN (slot_a, slot_b)
               AND c.xid IS NOT DISTINCT FROM this AND c.op = 'D' ORDER BY c.seq DESC LIMIT 1;
        ELSE
            SELECT c.slot, c.seq INTO entry FROM changes c
             WHERE c.id = link.id AND c.version = owner.version AND c.entity = kind AND c.slot IN (slot_a, slot_b)
               AND c.xid IS NOT DISTINCT FROM this AND c.op <> 'D' ORDER BY c.seq DESC LIMIT 1;
        END IF;
        IF FOUND THEN
            UPDATE changes c SET (fields, old) =
                   (SELECT l.fields, l.old FROM changelog_link(c.op, jsonb_build_object(edge, link.ends), c.fields, c.old) l)
             WHERE c.slot = entry.slot AND c.xid = this AND c.seq = entry.seq;
            CONTINUE;
        END IF;

        waiting := coalesce(nullif(current_setting('godstack.links', true), ''), '{}');
        PERFORM set_config('godstack.links', (waiting || jsonb_build_object(kind || link.id,
            coalesce(waiting->(kind || link.id), '{}')
            || jsonb_build_object(edge, changelog_net(waiting->(kind || link.id)->edge, link.ends))))::text, true);
        -- A version from no earlier transaction, of which the log knows nothing: its row is about to be written.
        IF owner.version IS NOT NULL AND NOT (owner.young AND NOT EXISTS (
            SELECT FROM changes c WHERE c.id = link.id AND c.version = owner.version AND c.entity = kind)) THEN
            EXECUTE format('UPDATE %s SET version = version WHERE id = $1', tbl) USING link.id;
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_drop removes the triggers of a table whose names match, and the functions generated for them.
CREATE FUNCTION changelog_drop(tbl regclass, names text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    t record;
BEGIN
    FOR t IN SELECT g.tgname, p.oid::regprocedure AS fn, p.proname FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
              WHERE g.tgrelid = tbl AND NOT g.tgisinternal AND g.tgname ~ names LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, tbl);
        IF t.proname LIKE 'changelog\_of\_%' THEN
            EXECUTE format('DROP FUNCTION %s', t.fn);
        END IF;
    END LOOP;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_track has the rows of a table versioned and, where logged, written to the log as changes of an entity.
-- The table has columns id (uuid) and version, and updated_at if it likes. Values of sensitive columns stay out of
-- the log. Call it again after ALTER TABLE: the trigger's function names every column.
CREATE FUNCTION changelog_track(tbl regclass, entity text, sensitive text[] DEFAULT '{}', logged boolean DEFAULT true)
    RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    nsp      name;
    rel      name;
    fn       text;
    col      record;
    names    text[];
    wrong    text;
    same     text;
    compare  text := '';
    whole    text;
BEGIN
    SELECT n.nspname, c.relname INTO nsp, rel FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = tbl;
    SELECT array_agg(a.attname::text) INTO names FROM pg_attribute a WHERE a.attrelid = tbl AND a.attnum > 0 AND NOT a.attisdropped;
    SELECT string_agg(w, ', ') INTO wrong FROM unnest(sensitive || '{id,version}') w WHERE w <> ALL (names);
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'track %: no column %', tbl, wrong USING ERRCODE = 'undefined_column';
    END IF;

    PERFORM changelog_drop(tbl, '^(zz_changelog_version|changelog_(fixed_id|row|truncate))$');
    -- Triggers run in the order of their names: the version is set last.
    EXECUTE format('CREATE TRIGGER zz_changelog_version BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()',
        tbl, CASE WHEN 'updated_at' = ANY (names) THEN 'changelog_version_at' ELSE 'changelog_version' END);
    EXECUTE format('CREATE TRIGGER changelog_fixed_id BEFORE UPDATE OF id ON %s FOR EACH ROW'
        ' WHEN (NEW.id IS DISTINCT FROM OLD.id) EXECUTE FUNCTION changelog_fixed_id()', tbl);
    IF NOT logged THEN
        RETURN;
    END IF;

    FOR col IN
        SELECT a.attname AS name, a.attname = ANY (sensitive) AS secret, format_type(a.atttypid, NULL) AS type,
               -- Such types may call different texts equal (citext).
               t.typcategory = 'S' AND t.typname NOT IN ('text', 'varchar', 'bpchar') AS as_text,
               -- json may hold what jsonb refuses.
               a.atttypid = 'json'::regtype AS is_json
          FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
         WHERE a.attrelid = tbl AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    LOOP
        IF NOT col.as_text THEN
            BEGIN -- Grouping asks for equality all through arrays and composite types.
                EXECUTE format('SELECT FROM (SELECT NULL::%s) s (x) GROUP BY x', col.type);
            EXCEPTION WHEN undefined_function THEN
                col.as_text := true;
            END;
        END IF;
        IF col.name NOT IN ('id', 'version', 'updated_at') THEN
            same := CASE WHEN col.as_text THEN '::text' ELSE '' END;
            compare := compare || format('
        IF NEW.%1$I%2$s IS DISTINCT FROM OLD.%1$I%2$s THEN
            names := names || %3$L::text;', col.name, same, col.name);
            IF NOT col.secret THEN
                compare := compare || format('
            before := before || jsonb_build_object(%L, OLD.%I%s);', col.name, col.name, CASE WHEN col.is_json THEN '::text' ELSE '' END);
            END IF;
            compare := compare || '
        END IF;';
        END IF;
        IF NOT col.secret THEN
            whole := concat_ws(', ', whole, format('OLD.%1$I%2$s AS %1$I', col.name, CASE WHEN col.is_json THEN '::text' ELSE '' END));
        END IF;
    END LOOP;

    fn := format('%I.%I', nsp, 'changelog_of_' || CASE WHEN octet_length(rel) <= 50 THEN rel ELSE md5(rel) END);
    EXECUTE format($fn$
CREATE OR REPLACE FUNCTION %1$s() RETURNS trigger LANGUAGE plpgsql AS $body$
DECLARE
    names  text[] := '{}';
    before jsonb;
BEGIN
    -- Every expression is prepared anew in each transaction: there are few. NEW is null for a delete.
    IF TG_OP = 'UPDATE' THEN
        before := '{}';%4$s
    ELSIF TG_OP = 'DELETE' THEN
        before := (SELECT to_jsonb(r) FROM (SELECT %5$s) r);
    END IF;
    IF current_setting('godstack.links', true) <> '' THEN
        SELECT w.fields, w.old INTO names, before
          FROM %2$I.changelog_waiting(%3$L || coalesce(NEW.id, OLD.id), left(TG_OP, 1)::"char", names, before) w;
    END IF;
    INSERT INTO %2$I.changes (entity, id, version, op, fields, old) VALUES
        (%3$L, coalesce(NEW.id, OLD.id), coalesce(NEW.version, OLD.version + 1), left(TG_OP, 1)::"char", names, before);
    RETURN NULL;
END $body$
    $fn$, fn, (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = 'changes'::regclass),
        entity, compare, whole);
    EXECUTE format('CREATE TRIGGER changelog_row AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION %s()', tbl, fn);
    EXECUTE format('CREATE TRIGGER changelog_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION changelog_resync(%L)', tbl, entity);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_track_join has links and unlinks in a join table count as changes of the records of an entity: those in
-- table owner that owner_column of the join table points at. other_column is the other end, edge the name of the field.
-- A join table may be tracked for both of its columns.
CREATE FUNCTION changelog_track_join(tbl regclass, entity text, owner regclass, owner_column name, other_column name, edge text)
    RETURNS void LANGUAGE plpgsql SET search_path FROM CURRENT SET client_min_messages = warning AS $$
DECLARE
    event record;
    base  text := 'changelog_link_' || left(owner_column, 40);
    args  text;
BEGIN
    SELECT format('%L, %L, %L, %L, %L', entity, format('%I.%I', n.nspname, c.relname), owner_column, other_column, edge)
      INTO args FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = owner;
    FOR event IN SELECT * FROM (VALUES ('insert', 'NEW TABLE AS linked'), ('delete', 'OLD TABLE AS unlinked'),
                                       ('update', 'NEW TABLE AS linked OLD TABLE AS unlinked')) e (name, tables) LOOP
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', base || '_' || event.name, tbl);
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s REFERENCING %s FOR EACH STATEMENT EXECUTE FUNCTION changelog_links(%s)',
            base || '_' || event.name, event.name, tbl, event.tables, args);
    END LOOP;
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', base || '_truncate', tbl);
    EXECUTE format('CREATE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION changelog_resync(%L)',
        base || '_truncate', tbl, entity);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- changelog_untrack undoes changelog_track and changelog_track_join. Call it before DROP TABLE.
CREATE FUNCTION changelog_untrack(tbl regclass) RETURNS void
    LANGUAGE sql SET search_path FROM CURRENT AS $$
    SELECT changelog_drop(tbl, '^(zz_)?changelog_')
$$;
-- +goose StatementEnd
