-- Version 10: sweeps keep their meaning.

ALTER TABLE sweeps ADD COLUMN grammar INTEGER NOT NULL DEFAULT 1; -- the version in which the sweep file is read
ALTER TABLE sweeps ADD COLUMN cells BLOB;                         -- a digest of what its cells resolve to; null while none is known
