-- Payments, what is done to them, what is still to be sent, and the keys of
-- callers. Columns of type BLOB that hold text begin with a format byte
-- (0 = plain), so that they can be encrypted without a new schema.

CREATE TABLE payment (
    id             BLOB    PRIMARY KEY NOT NULL,
    payer          TEXT    NOT NULL,
    payee          TEXT    NOT NULL,
    currency       TEXT    NOT NULL,
    minor_units    INTEGER NOT NULL CHECK (minor_units > 0),
    capture        INTEGER NOT NULL,
    status         INTEGER NOT NULL,
    captured       INTEGER NOT NULL DEFAULT 0,
    refunded       INTEGER NOT NULL DEFAULT 0,
    unknown        INTEGER NOT NULL DEFAULT 0,
    failure_code   TEXT,
    failure_detail BLOB,
    next_action    BLOB,
    description    BLOB    NOT NULL,
    metadata       BLOB    NOT NULL,
    room_id        TEXT    NOT NULL,
    provider       TEXT    NOT NULL,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    CHECK (captured BETWEEN 0 AND minor_units),
    CHECK (refunded BETWEEN 0 AND captured)
) STRICT, WITHOUT ROWID;

CREATE INDEX payment_by_payer ON payment (payer, id);
CREATE INDEX payment_by_payee ON payment (payee, id);

-- kind: 1 charge, 2 capture, 3 cancel, 4 refund.
-- status: 1 new, 2 submitting, 3 done, 4 failed, 5 unknown.
CREATE TABLE operation (
    id             BLOB    PRIMARY KEY NOT NULL,
    payment_id     BLOB    NOT NULL REFERENCES payment (id),
    kind           INTEGER NOT NULL,
    status         INTEGER NOT NULL,
    minor_units    INTEGER NOT NULL CHECK (minor_units > 0),
    provider_key   TEXT    NOT NULL UNIQUE,
    method         BLOB,
    failure_code   TEXT,
    failure_detail BLOB,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One live operation per payment; the second index finds its charge.
CREATE UNIQUE INDEX operation_live ON operation (payment_id) WHERE status IN (1, 2, 5);
CREATE UNIQUE INDEX operation_charge ON operation (payment_id) WHERE kind = 1;
CREATE INDEX operation_submitting ON operation (status) WHERE status = 2;

-- What is still to be done: 1 drive an operation, 2 post a receipt. A row under
-- lease is due when the lease ends, or at once after that when it is hastened.
CREATE TABLE outbox (
    id           INTEGER PRIMARY KEY NOT NULL,
    task         INTEGER NOT NULL,
    payment_id   BLOB    NOT NULL REFERENCES payment (id),
    operation_id BLOB    NOT NULL REFERENCES operation (id),
    next_at      INTEGER NOT NULL,
    attempts     INTEGER NOT NULL DEFAULT 0,
    lease_owner  TEXT    NOT NULL DEFAULT '',
    lease_until  INTEGER NOT NULL DEFAULT 0,
    hastened     INTEGER NOT NULL DEFAULT 0,
    trace        TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    UNIQUE (operation_id, task)
) STRICT;

CREATE INDEX outbox_due ON outbox (next_at);
CREATE INDEX outbox_by_payment ON outbox (payment_id);

CREATE TABLE idempotency (
    account      TEXT    NOT NULL,
    method       TEXT    NOT NULL,
    key          TEXT    NOT NULL,
    request_hash BLOB    NOT NULL,
    payment_id   BLOB    NOT NULL,
    operation_id BLOB    NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (account, method, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_age ON idempotency (created_at);
