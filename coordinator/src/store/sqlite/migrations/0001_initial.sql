-- Version 1. Forward only: a later version adds a file of its own.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO meta VALUES ('epoch', 0), ('next_lease', 1);

CREATE TABLE sweeps (
    number      INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    file        TEXT NOT NULL,
    text        TEXT NOT NULL,
    settings    TEXT NOT NULL,   -- JSON list of strings
    data_hash   BLOB,
    data_train  INTEGER NOT NULL,
    data_words  TEXT NOT NULL,
    state       INTEGER NOT NULL, -- 1 running, 2 completed, 3 cancelled
    launched_at REAL NOT NULL
);

CREATE TABLE leases (
    lease  INTEGER PRIMARY KEY,
    epoch  INTEGER NOT NULL,
    sweep  INTEGER NOT NULL,
    class  INTEGER NOT NULL,
    worker TEXT NOT NULL,
    trials BLOB NOT NULL          -- pairs of u64: start, exclusive end
);

-- One row per trial that has ended, small, in the order in which tables read them.
CREATE TABLE trials (
    sweep    INTEGER NOT NULL,
    cell     INTEGER NOT NULL,
    repeat   INTEGER NOT NULL,
    outcome  INTEGER NOT NULL,    -- 1 completed, 2 diverged, 3 failed
    step     INTEGER,             -- of a divergence
    cause    TEXT,                -- of a failure
    steps    INTEGER NOT NULL,
    seconds  REAL NOT NULL,
    worker   TEXT NOT NULL,
    digest   BLOB NOT NULL,
    metrics  BLOB NOT NULL,       -- f64
    curve    INTEGER NOT NULL,    -- rowid in curves
    PRIMARY KEY (sweep, cell, repeat)
) WITHOUT ROWID;

-- Appended only; read by those who ask for curves.
CREATE TABLE curves (
    curve INTEGER PRIMARY KEY,
    data  BLOB NOT NULL           -- u32 count, u64 steps, f64 rows
);
