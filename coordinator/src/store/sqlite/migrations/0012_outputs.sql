-- Version 12: what programs print is kept.

-- Of attempts that printed something.
CREATE TABLE outputs (
    sweep    INTEGER NOT NULL,
    cell     INTEGER NOT NULL,
    repeat   INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,   -- 0, 1, 2, …: as in attempts, and after these that of the row
    printed  INTEGER NOT NULL,   -- bytes that were printed
    data     BLOB NOT NULL,      -- the last of them, compressed by zstd
    checksum INTEGER NOT NULL,
    PRIMARY KEY (sweep, cell, repeat, attempt)
);
