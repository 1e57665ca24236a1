-- Version 9: sweeps know who launched them.

ALTER TABLE sweeps ADD COLUMN launched_by TEXT NOT NULL DEFAULT ''; -- a token's id or user@host; empty if it is not known
