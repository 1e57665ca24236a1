-- Version 7: trials that are run again although another sweep has their row, which lacks something.

-- Cells, with the cells of other sweeps that are the same: the digests of their rows are compared.
CREATE TABLE twins (
    sweep       bigint NOT NULL,
    cell        bigint NOT NULL,
    other_sweep bigint NOT NULL,
    other_cell  bigint NOT NULL,
    PRIMARY KEY (sweep, cell, other_sweep)
);
