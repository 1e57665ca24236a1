-- Version 5: sweeps know who launched them.

ALTER TABLE sweeps ADD COLUMN launched_by text NOT NULL DEFAULT ''; -- a token's id or user@host; empty if it is not known
