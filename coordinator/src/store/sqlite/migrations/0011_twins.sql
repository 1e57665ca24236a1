-- Version 11: trials that are run again although another sweep has their row, which lacks something.

-- Cells, with the cells of other sweeps that are the same: the digests of their rows are compared.
CREATE TABLE twins (
    sweep       INTEGER NOT NULL,
    cell        INTEGER NOT NULL,
    other_sweep INTEGER NOT NULL,
    other_cell  INTEGER NOT NULL,
    PRIMARY KEY (sweep, cell, other_sweep)
) WITHOUT ROWID;
