-- Version 2: rows carry a checksum of their content, their key included (rows.rs says which). Rows from before have none
-- and are not checked.

ALTER TABLE sweeps ADD COLUMN checksum bigint;
ALTER TABLE leases ADD COLUMN checksum bigint;
ALTER TABLE trials ADD COLUMN checksum bigint;
ALTER TABLE curves ADD COLUMN checksum bigint;      -- with the key of its trial, which may lead to no other curve
ALTER TABLE predictions ADD COLUMN checksum bigint;
ALTER TABLE attempts ADD COLUMN checksum bigint;
