-- +goose Up

-- idempotency_keys has the answers of mutations that were sent with an idempotency key, for who sends them again within a day. A row is
-- inserted first and completed last, in the transaction of the writes, so that whoever sends the same key meanwhile waits for it, and
-- one that can be seen has its answer.
CREATE TABLE idempotency_keys (
    user_id uuid NOT NULL, -- who sent it. No reference: rows go after a day anyway, and an insert need not lock the user
    key text COLLATE "C" NOT NULL,
    request bytea NOT NULL, -- hash of document, operation and variables
    data bytea,             -- of the answer, byte by byte
    beside json,            -- its errors and extensions, null where there were none
    shown json,             -- the records that it shows: {"read", "deleted" or "written": {prefix: {id: [fields that not everybody reads]}}}
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
-- For the removal of old rows.
CREATE INDEX idempotency_keys_created_at_idx ON idempotency_keys (created_at);
