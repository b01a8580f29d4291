-- The sandbox's own books, for nodes that share a database. Nothing here refers
-- to the nodes' tables, nor they to it: the provider knows a charge by the key
-- that it was given, as a remote one would.

-- status: 1 succeeded, 2 authorized, 3 requires action, 4 pending,
-- 5 declined, 6 canceled, 7 expired. lossy: whether the first reply to
-- everything done to the charge is lost. received: how often the request came.
CREATE TABLE sandbox_charge (
    key         TEXT    COLLATE "C" PRIMARY KEY,
    currency    TEXT    NOT NULL,
    minor_units BIGINT  NOT NULL CHECK (minor_units > 0),
    manual      BOOLEAN NOT NULL,
    status      BIGINT  NOT NULL,
    code        TEXT    NOT NULL DEFAULT '',
    captured    BIGINT  NOT NULL DEFAULT 0,
    refunded    BIGINT  NOT NULL DEFAULT 0,
    settles_at  BIGINT  NOT NULL DEFAULT 0,
    lossy       BOOLEAN NOT NULL DEFAULT FALSE,
    received    BIGINT  NOT NULL DEFAULT 1,
    created_at  BIGINT  NOT NULL,
    CHECK (captured BETWEEN 0 AND minor_units),
    CHECK (refunded BETWEEN 0 AND captured)
);

-- What was done to a charge. kind: 2 capture, 3 cancel, 4 refund. An empty code
-- means that it was done, any other that it was refused.
CREATE TABLE sandbox_action (
    key         TEXT   COLLATE "C" PRIMARY KEY,
    charge_key  TEXT   COLLATE "C" NOT NULL REFERENCES sandbox_charge (key),
    kind        BIGINT NOT NULL,
    minor_units BIGINT NOT NULL CHECK (minor_units > 0),
    code        TEXT   NOT NULL,
    received    BIGINT NOT NULL DEFAULT 1,
    created_at  BIGINT NOT NULL
);
