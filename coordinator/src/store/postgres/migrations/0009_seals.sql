-- Version 9: completed sweeps are sealed, so that a start need not read their rows.

-- What the rows and audits of a completed sweep amount to. Whatever changes any of them deletes the seal, in the same transaction.
CREATE TABLE seals (
    sweep     bigint PRIMARY KEY,
    completed bigint NOT NULL,  -- rows by outcome
    diverged  bigint NOT NULL,
    failed    bigint NOT NULL,
    row_sum   bigint NOT NULL,  -- of the checksums of all rows, modulo 2^64
    tallies   bytea NOT NULL,   -- a format and, in that, statistics of cells and classes, and counts of audits
    checksum  bigint NOT NULL
);
