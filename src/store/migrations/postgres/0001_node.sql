-- What the store knows of itself. The key `schema_needs`, if there, names the
-- newest migration that a release must know to run on this schema: the newest of
-- the release before, since a release expands and the next one contracts.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- Who takes part. A row is one incarnation of a node; the next one of the same
-- id replaces it, once it is not alive. state: 1 live, 2 draining, 3 left,
-- 4 dead. Rows are small and written twice a second: room is left on each page,
-- so that a beat stays on it and touches no index.
CREATE TABLE node (
    id             TEXT    PRIMARY KEY,
    incarnation    TEXT    NOT NULL,
    public_address TEXT    NOT NULL,
    mesh_address   TEXT    NOT NULL,
    zone           TEXT    NOT NULL,
    release        TEXT    NOT NULL,
    started_at     BIGINT  NOT NULL,
    state          INTEGER NOT NULL,
    beat           BIGINT  NOT NULL,
    sessions       BIGINT  NOT NULL
) WITH (fillfactor = 20);

-- What a node that reaches the store, but not an owner, leaves for it.
CREATE TABLE letter (
    id          BIGINT  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    "partition" INTEGER NOT NULL,
    sender      TEXT    NOT NULL,
    body        BYTEA   NOT NULL,
    answer      BYTEA
);

CREATE INDEX letter_waiting ON letter ("partition", id) WHERE answer IS NULL;
CREATE INDEX letter_sender ON letter (sender, id);
