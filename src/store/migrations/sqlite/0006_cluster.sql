-- Several nodes of one machine on this file.

-- Who takes part. A row is one incarnation of a node; the next one of the same
-- id replaces it, once it is not alive. state: 1 live, 2 draining, 3 left,
-- 4 dead. Whether the process runs is told by a lock beside the file.
CREATE TABLE node (
    id             TEXT    PRIMARY KEY NOT NULL,
    incarnation    TEXT    NOT NULL,
    public_address TEXT    NOT NULL,
    mesh_address   TEXT    NOT NULL,
    zone           TEXT    NOT NULL,
    release        TEXT    NOT NULL,
    started_at     INTEGER NOT NULL,
    state          INTEGER NOT NULL,
    beat           INTEGER NOT NULL,
    sessions       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a node that reaches the store, but not an owner, leaves for it. A number
-- is never given twice.
CREATE TABLE letter (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    "partition" INTEGER NOT NULL,
    sender      TEXT    NOT NULL,
    body        BLOB    NOT NULL,
    answer      BLOB
) STRICT;

CREATE INDEX letter_waiting ON letter ("partition", id) WHERE answer IS NULL;
CREATE INDEX letter_sender ON letter (sender, id);

-- Nothing of what was there changed: a release that knows the schema up to 5
-- still runs on this one.
INSERT INTO meta (key, value) VALUES ('schema_needs', '5') ON CONFLICT (key) DO NOTHING;
