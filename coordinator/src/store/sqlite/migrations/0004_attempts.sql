-- Version 4: sweeps may be paused (state 4), and failed trials run again.

-- What became of trials before they were run again.
CREATE TABLE attempts (
    sweep   INTEGER NOT NULL,
    cell    INTEGER NOT NULL,
    repeat  INTEGER NOT NULL,
    attempt INTEGER NOT NULL,    -- 0, 1, 2, …
    cause   TEXT,
    worker  TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (sweep, cell, repeat, attempt)
) WITHOUT ROWID;
