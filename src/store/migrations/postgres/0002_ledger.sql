-- The ledger: immutable double-entry transfers in integer minor units. Names
-- are compared byte by byte, as the nodes sort them when they lock accounts.
-- Where tables are distributed, these stay on one server: a transfer touches
-- several accounts.

-- An account appears with its first entry. Its row is what orders its entries:
-- a position is given while the row is locked, so commit order is position
-- order.
CREATE TABLE account (
    name          TEXT   COLLATE "C" PRIMARY KEY,
    last_position BIGINT NOT NULL CHECK (last_position >= 0)
) WITH (fillfactor = 70);

-- The fold of an account's entries in one currency.
CREATE TABLE account_balance (
    account  TEXT   COLLATE "C" NOT NULL,
    currency TEXT   COLLATE "C" NOT NULL CHECK (length(currency) = 3),
    posted   BIGINT NOT NULL,
    PRIMARY KEY (account, currency)
) WITH (fillfactor = 70);

-- One movement gives two rows: side 0 out of an account, side 1 into the other.
CREATE TABLE ledger_entry (
    account       TEXT     COLLATE "C" NOT NULL,
    position      BIGINT   NOT NULL CHECK (position > 0),
    entry_id      BYTEA    NOT NULL UNIQUE CHECK (length(entry_id) = 16),
    transfer_id   BYTEA    NOT NULL CHECK (length(transfer_id) = 16),
    step          BIGINT   NOT NULL CHECK (step >= 0),
    side          SMALLINT NOT NULL CHECK (side IN (0, 1)),
    kind          SMALLINT NOT NULL,
    currency      TEXT     COLLATE "C" NOT NULL CHECK (length(currency) = 3),
    minor_units   BIGINT   NOT NULL CHECK ((side = 0 AND minor_units < 0) OR (side = 1 AND minor_units > 0)),
    balance_after BIGINT   NOT NULL,
    counterparty  TEXT     COLLATE "C" NOT NULL,
    payment_id    BYTEA    NOT NULL CHECK (length(payment_id) = 16),
    posted_at     BIGINT   NOT NULL,
    PRIMARY KEY (account, position),
    CONSTRAINT ledger_entry_once UNIQUE (transfer_id, step, side)
);

CREATE INDEX ledger_entry_payment ON ledger_entry (payment_id);

-- What an authorized payment holds for its payee until it is captured.
CREATE TABLE hold (
    payment_id  BYTEA  PRIMARY KEY CHECK (length(payment_id) = 16),
    account     TEXT   COLLATE "C" NOT NULL,
    currency    TEXT   COLLATE "C" NOT NULL CHECK (length(currency) = 3),
    minor_units BIGINT NOT NULL CHECK (minor_units > 0)
);

CREATE INDEX hold_account ON hold (account);
