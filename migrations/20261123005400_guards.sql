-- +goose Up

-- +goose StatementBegin
-- access_refuse ends the statement, and the transaction, in which it is evaluated. what says which check failed: the
-- name of an input field, or of the operation.
CREATE FUNCTION access_refuse(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'access refused' USING ERRCODE = 'GS403', DETAIL = what;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- security_events_fixed keeps the audit trail append-only. That a user is deleted is no change to what happened: the
-- foreign key may become null.
CREATE FUNCTION security_events_fixed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.user_id IS NULL
       AND to_jsonb(NEW) - '{user_id,version,updated_at}'::text[] = to_jsonb(OLD) - '{user_id,version,updated_at}'::text[] THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'security_events is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
-- +goose StatementEnd

CREATE TRIGGER security_events_fixed BEFORE UPDATE OR DELETE ON security_events
    FOR EACH ROW EXECUTE FUNCTION security_events_fixed();
CREATE TRIGGER security_events_kept BEFORE TRUNCATE ON security_events
    FOR EACH STATEMENT EXECUTE FUNCTION security_events_fixed();
