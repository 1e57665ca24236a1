-- Version 3: what happened to a sweep besides its rows, counted in the transactions in which it happened.

ALTER TABLE sweeps ADD COLUMN releases INTEGER NOT NULL DEFAULT 0;   -- leases that ended with trials left
ALTER TABLE sweeps ADD COLUMN duplicates INTEGER NOT NULL DEFAULT 0; -- results compared with a row
ALTER TABLE sweeps ADD COLUMN mismatches INTEGER NOT NULL DEFAULT 0; -- of these, different ones
ALTER TABLE sweeps ADD COLUMN fenced INTEGER NOT NULL DEFAULT 0;     -- batches under a fence that held no more
