-- Version 4: audits, and the leases for them.

-- Trials that are to be run a second time, by another worker process. One is due from the moment its trial has a row.
CREATE TABLE audits (
    sweep           bigint NOT NULL,
    cell            bigint NOT NULL,
    repeat          bigint NOT NULL,
    process         text NOT NULL,             -- which computed the row
    finding         bigint NOT NULL DEFAULT 0, -- 0 none yet, 1 same bits, 2 other bits, 3 failed
    auditor         text NOT NULL DEFAULT '',  -- the worker that ran it again, by its name
    auditor_process text NOT NULL DEFAULT '',
    why             text NOT NULL DEFAULT '',  -- what differed, or why it failed
    PRIMARY KEY (sweep, cell, repeat)
);

ALTER TABLE leases ADD COLUMN audits text; -- the process whose rows are audited; null if the trials have no rows yet
