-- The sandbox's own books. Nothing here refers to the node's store: the
-- provider knows a charge by the key that it was given, as a remote one would.

-- status: 1 succeeded, 2 authorized, 3 requires action, 4 pending,
-- 5 declined, 6 canceled, 7 expired.
CREATE TABLE charge (
    key         TEXT    PRIMARY KEY NOT NULL,
    currency    TEXT    NOT NULL,
    minor_units INTEGER NOT NULL CHECK (minor_units > 0),
    manual      INTEGER NOT NULL,
    status      INTEGER NOT NULL,
    code        TEXT    NOT NULL DEFAULT '',
    captured    INTEGER NOT NULL DEFAULT 0,
    refunded    INTEGER NOT NULL DEFAULT 0,
    settles_at  INTEGER NOT NULL DEFAULT 0,
    received    INTEGER NOT NULL DEFAULT 1,
    created_at  INTEGER NOT NULL,
    CHECK (captured BETWEEN 0 AND minor_units),
    CHECK (refunded BETWEEN 0 AND captured)
) STRICT, WITHOUT ROWID;

-- What was done to a charge. kind: 2 capture, 3 cancel, 4 refund. An empty code
-- means that it was done, any other that it was refused.
CREATE TABLE action (
    key         TEXT    PRIMARY KEY NOT NULL,
    charge_key  TEXT    NOT NULL REFERENCES charge (key),
    kind        INTEGER NOT NULL,
    minor_units INTEGER NOT NULL CHECK (minor_units > 0),
    code        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
