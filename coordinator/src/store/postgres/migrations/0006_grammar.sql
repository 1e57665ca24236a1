-- Version 6: sweeps keep their meaning.

ALTER TABLE sweeps ADD COLUMN grammar bigint NOT NULL DEFAULT 1; -- the version in which the sweep file is read
ALTER TABLE sweeps ADD COLUMN cells bytea;                        -- a digest of what its cells resolve to; null while none is known
