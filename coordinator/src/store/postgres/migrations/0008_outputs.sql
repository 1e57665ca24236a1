-- Version 8: what programs print is kept.

-- Of attempts that printed something.
CREATE TABLE outputs (
    sweep    bigint NOT NULL,
    cell     bigint NOT NULL,
    repeat   bigint NOT NULL,
    attempt  bigint NOT NULL,   -- 0, 1, 2, …: as in attempts, and after these that of the row
    printed  bigint NOT NULL,   -- bytes that were printed
    data     bytea NOT NULL,    -- the last of them, compressed by zstd
    checksum bigint NOT NULL,
    PRIMARY KEY (sweep, cell, repeat, attempt)
);
