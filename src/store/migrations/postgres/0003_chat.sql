-- Rooms, members and the log. Every key begins with the partition, then the
-- room, so that the tables can be distributed by partition. Times are
-- microseconds since 1970, principals are `kind/id@trust-domain`. Text sorts by
-- its bytes, as on the other engines.

-- Who orders the rooms of a hash slot. A write is kept only under the epoch
-- that stands here. Each append rewrites the row: room is left for it.
CREATE TABLE "partition" (
    id        INTEGER PRIMARY KEY,
    owner     TEXT    NOT NULL,
    epoch     BIGINT  NOT NULL,
    commit_no BIGINT  NOT NULL
) WITH (fillfactor = 20);

-- A deleted room keeps its row, so that its id is not given again. `deleted` is
-- 2 until its entries, keys and members are erased, and 1 from then on. A title
-- may hold a zero byte, which TEXT cannot: its UTF-8 stands there as bytes.
CREATE TABLE room (
    "partition" INTEGER NOT NULL,
    room        TEXT    COLLATE "C" NOT NULL,
    title       BYTEA   NOT NULL,
    created_by  TEXT    NOT NULL,
    created_at  BIGINT  NOT NULL,
    head        BIGINT  NOT NULL,
    deleted     INTEGER NOT NULL,
    PRIMARY KEY ("partition", room)
) WITH (fillfactor = 70);

-- The log. The body begins with a format byte: 0 is plain.
CREATE TABLE entry (
    "partition"       INTEGER NOT NULL,
    room              TEXT    COLLATE "C" NOT NULL,
    seq               BIGINT  NOT NULL,
    kind              INTEGER NOT NULL,
    sender            TEXT    NOT NULL,
    client_message_id TEXT    NOT NULL,
    body              BYTEA   NOT NULL,
    reply_to          BIGINT  NOT NULL,
    committed_at      BIGINT  NOT NULL,
    PRIMARY KEY ("partition", room, seq)
);

-- What makes sending idempotent. A table of its own, because a key is forgotten
-- long before its entry.
CREATE TABLE entry_key (
    "partition"       INTEGER NOT NULL,
    room              TEXT    COLLATE "C" NOT NULL,
    sender            TEXT    COLLATE "C" NOT NULL,
    client_message_id TEXT    COLLATE "C" NOT NULL,
    seq               BIGINT  NOT NULL,
    committed_at      BIGINT  NOT NULL,
    digest            BYTEA   NOT NULL,
    redactions        BIGINT  NOT NULL,
    PRIMARY KEY ("partition", room, sender, client_message_id)
);

CREATE INDEX entry_key_by_age ON entry_key (committed_at);

CREATE TABLE member (
    "partition" INTEGER NOT NULL,
    room        TEXT    COLLATE "C" NOT NULL,
    member      TEXT    COLLATE "C" NOT NULL,
    role        INTEGER NOT NULL,
    joined_at   BIGINT  NOT NULL,
    PRIMARY KEY ("partition", room, member)
);

-- The rooms of a principal, in order of their ids.
CREATE INDEX member_rooms ON member (member, room);
