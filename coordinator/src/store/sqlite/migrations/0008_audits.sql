-- Version 8: audits, and the leases for them.

-- Trials that are to be run a second time, by another worker process. One is due from the moment its trial has a row.
CREATE TABLE audits (
    sweep           INTEGER NOT NULL,
    cell            INTEGER NOT NULL,
    repeat          INTEGER NOT NULL,
    process         TEXT NOT NULL,              -- which computed the row
    finding         INTEGER NOT NULL DEFAULT 0, -- 0 none yet, 1 same bits, 2 other bits, 3 failed
    auditor         TEXT NOT NULL DEFAULT '',   -- the worker that ran it again, by its name
    auditor_process TEXT NOT NULL DEFAULT '',
    why             TEXT NOT NULL DEFAULT '',   -- what differed, or why it failed
    PRIMARY KEY (sweep, cell, repeat)
) WITHOUT ROWID;

ALTER TABLE leases ADD COLUMN audits TEXT; -- the process whose rows are audited; null if the trials have no rows yet
