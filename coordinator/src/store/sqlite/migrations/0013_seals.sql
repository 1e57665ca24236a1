-- Version 13: completed sweeps are sealed, so that a start need not read their rows.

-- What the rows and audits of a completed sweep amount to. Whatever changes any of them deletes the seal, in the same transaction.
CREATE TABLE seals (
    sweep     INTEGER PRIMARY KEY,
    completed INTEGER NOT NULL,  -- rows by outcome
    diverged  INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    row_sum   INTEGER NOT NULL,  -- of the checksums of all rows, modulo 2^64
    tallies   BLOB NOT NULL,     -- a format and, in that, statistics of cells and classes, and counts of audits
    checksum  INTEGER NOT NULL
);
