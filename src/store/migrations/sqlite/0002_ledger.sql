-- The ledger: immutable double-entry transfers in integer minor units.

-- An account appears with its first entry. Its row is what orders its entries:
-- a position is given while the row is being written, so commit order is
-- position order.
CREATE TABLE account (
    name          TEXT    PRIMARY KEY NOT NULL,
    last_position INTEGER NOT NULL CHECK (last_position >= 0)
) STRICT, WITHOUT ROWID;

-- The fold of an account's entries in one currency.
CREATE TABLE account_balance (
    account  TEXT    NOT NULL,
    currency TEXT    NOT NULL CHECK (length(currency) = 3),
    posted   INTEGER NOT NULL,
    PRIMARY KEY (account, currency)
) STRICT, WITHOUT ROWID;

-- One movement gives two rows: side 0 out of an account, side 1 into the other.
CREATE TABLE ledger_entry (
    account       TEXT    NOT NULL,
    position      INTEGER NOT NULL CHECK (position > 0),
    entry_id      BLOB    NOT NULL UNIQUE CHECK (length(entry_id) = 16),
    transfer_id   BLOB    NOT NULL CHECK (length(transfer_id) = 16),
    step          INTEGER NOT NULL CHECK (step >= 0),
    side          INTEGER NOT NULL CHECK (side IN (0, 1)),
    kind          INTEGER NOT NULL,
    currency      TEXT    NOT NULL CHECK (length(currency) = 3),
    minor_units   INTEGER NOT NULL CHECK ((side = 0 AND minor_units < 0) OR (side = 1 AND minor_units > 0)),
    balance_after INTEGER NOT NULL,
    counterparty  TEXT    NOT NULL,
    payment_id    BLOB    NOT NULL CHECK (length(payment_id) = 16),
    posted_at     INTEGER NOT NULL,
    PRIMARY KEY (account, position),
    UNIQUE (transfer_id, step, side)
) STRICT, WITHOUT ROWID;

CREATE INDEX ledger_entry_payment ON ledger_entry (payment_id);

-- What an authorized payment holds for its payee until it is captured.
CREATE TABLE hold (
    payment_id  BLOB    PRIMARY KEY NOT NULL CHECK (length(payment_id) = 16),
    account     TEXT    NOT NULL,
    currency    TEXT    NOT NULL CHECK (length(currency) = 3),
    minor_units INTEGER NOT NULL CHECK (minor_units > 0)
) STRICT, WITHOUT ROWID;

CREATE INDEX hold_account ON hold (account);
