-- Payments, what is done to them, what is still to be sent, and the keys of
-- callers. Columns of type BYTEA that hold text begin with a format byte
-- (0 = plain), so that they can be encrypted without a new schema.
--
-- Whoever locks several rows locks them in this order: key, outbox, payment,
-- operation, accounts.

CREATE TABLE payment (
    id             BYTEA    PRIMARY KEY CHECK (length(id) = 16),
    payer          TEXT     COLLATE "C" NOT NULL,
    payee          TEXT     COLLATE "C" NOT NULL,
    currency       TEXT     COLLATE "C" NOT NULL,
    minor_units    BIGINT   NOT NULL CHECK (minor_units > 0),
    capture        SMALLINT NOT NULL,
    status         SMALLINT NOT NULL,
    captured       BIGINT   NOT NULL DEFAULT 0,
    refunded       BIGINT   NOT NULL DEFAULT 0,
    unknown        BOOLEAN  NOT NULL DEFAULT FALSE,
    failure_code   TEXT,
    failure_detail BYTEA,
    next_action    BYTEA,
    description    BYTEA    NOT NULL,
    metadata       BYTEA    NOT NULL,
    room_id        TEXT     COLLATE "C" NOT NULL,
    provider       TEXT     COLLATE "C" NOT NULL,
    created_at     BIGINT   NOT NULL,
    updated_at     BIGINT   NOT NULL,
    version        BIGINT   NOT NULL,
    CHECK (captured BETWEEN 0 AND minor_units),
    CHECK (refunded BETWEEN 0 AND captured)
) WITH (fillfactor = 80);

CREATE INDEX payment_by_payer ON payment (payer, id);
CREATE INDEX payment_by_payee ON payment (payee, id);

-- kind: 1 charge, 2 capture, 3 cancel, 4 refund.
-- status: 1 new, 2 submitting, 3 done, 4 failed, 5 unknown.
CREATE TABLE operation (
    id             BYTEA    PRIMARY KEY CHECK (length(id) = 16),
    payment_id     BYTEA    NOT NULL REFERENCES payment (id),
    kind           SMALLINT NOT NULL,
    status         SMALLINT NOT NULL,
    minor_units    BIGINT   NOT NULL CHECK (minor_units > 0),
    provider_key   TEXT     COLLATE "C" NOT NULL UNIQUE,
    method         BYTEA,
    failure_code   TEXT,
    failure_detail BYTEA,
    created_at     BIGINT   NOT NULL,
    updated_at     BIGINT   NOT NULL
);

-- One live operation per payment; the second index finds its charge.
CREATE UNIQUE INDEX operation_live ON operation (payment_id) WHERE status IN (1, 2, 5);
CREATE UNIQUE INDEX operation_charge ON operation (payment_id) WHERE kind = 1;
CREATE INDEX operation_submitting ON operation (status) WHERE status = 2;

-- What is still to be done: 1 drive an operation, 2 post a receipt. A row under
-- lease is due when the lease ends, or at once after that when it is hastened.
-- The holder of a lease is the incarnation of a node.
CREATE TABLE outbox (
    id           BIGINT   GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task         SMALLINT NOT NULL,
    payment_id   BYTEA    NOT NULL REFERENCES payment (id),
    operation_id BYTEA    NOT NULL REFERENCES operation (id),
    next_at      BIGINT   NOT NULL,
    attempts     BIGINT   NOT NULL DEFAULT 0,
    lease_owner  TEXT     COLLATE "C" NOT NULL DEFAULT '',
    lease_until  BIGINT   NOT NULL DEFAULT 0,
    hastened     BOOLEAN  NOT NULL DEFAULT FALSE,
    trace        TEXT     NOT NULL,
    created_at   BIGINT   NOT NULL,
    UNIQUE (operation_id, task)
) WITH (
    fillfactor = 70,
    -- Rows come and go: what is dead is taken away early, or finding the next
    -- one reads it again and again.
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 500
);

CREATE INDEX outbox_due ON outbox (next_at);
CREATE INDEX outbox_by_payment ON outbox (payment_id);
CREATE INDEX outbox_by_owner ON outbox (lease_owner) WHERE lease_owner <> '';

CREATE TABLE idempotency (
    account      TEXT   COLLATE "C" NOT NULL,
    method       TEXT   COLLATE "C" NOT NULL,
    key          TEXT   COLLATE "C" NOT NULL,
    request_hash BYTEA  NOT NULL CHECK (length(request_hash) = 32),
    payment_id   BYTEA  NOT NULL CHECK (length(payment_id) = 16),
    operation_id BYTEA  NOT NULL CHECK (length(operation_id) = 16),
    created_at   BIGINT NOT NULL,
    PRIMARY KEY (account, method, key)
);

CREATE INDEX idempotency_age ON idempotency (created_at);
