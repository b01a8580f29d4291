-- Rooms, members and the log. Every key begins with the partition, then the
-- room, so that the tables can be distributed by partition. Times are
-- microseconds since 1970, principals are `kind/id@trust-domain`.

-- Who orders the rooms of a hash slot. A write is kept only under the epoch
-- that stands here.
CREATE TABLE "partition" (
    id        INTEGER PRIMARY KEY NOT NULL,
    owner     TEXT    NOT NULL,
    epoch     INTEGER NOT NULL,
    commit_no INTEGER NOT NULL
) STRICT;

-- A deleted room keeps its row, so that its id is not given again.
CREATE TABLE room (
    "partition" INTEGER NOT NULL,
    room        TEXT    NOT NULL,
    title       TEXT    NOT NULL,
    created_by  TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    head        INTEGER NOT NULL,
    deleted     INTEGER NOT NULL,
    PRIMARY KEY ("partition", room)
) STRICT, WITHOUT ROWID;

-- The log. The body begins with a format byte: 0 is plain.
CREATE TABLE entry (
    "partition"       INTEGER NOT NULL,
    room              TEXT    NOT NULL,
    seq               INTEGER NOT NULL,
    kind              INTEGER NOT NULL,
    sender            TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    body              BLOB    NOT NULL,
    reply_to          INTEGER NOT NULL,
    committed_at      INTEGER NOT NULL,
    PRIMARY KEY ("partition", room, seq)
) STRICT, WITHOUT ROWID;

-- What makes sending idempotent. A table of its own, because a key is forgotten
-- long before its entry.
CREATE TABLE entry_key (
    "partition"       INTEGER NOT NULL,
    room              TEXT    NOT NULL,
    sender            TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    seq               INTEGER NOT NULL,
    committed_at      INTEGER NOT NULL,
    digest            BLOB    NOT NULL,
    redactions        INTEGER NOT NULL,
    PRIMARY KEY ("partition", room, sender, client_message_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX entry_key_by_age ON entry_key (committed_at);

CREATE TABLE member (
    "partition" INTEGER NOT NULL,
    room        TEXT    NOT NULL,
    member      TEXT    NOT NULL,
    role        INTEGER NOT NULL,
    joined_at   INTEGER NOT NULL,
    PRIMARY KEY ("partition", room, member)
) STRICT, WITHOUT ROWID;

-- The rooms of a principal, in order of their ids.
CREATE INDEX member_rooms ON member (member, room);
