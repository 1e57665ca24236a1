-- Version 6: rows carry a checksum, so that a flipped byte is noticed. Rows of an older version have none.

ALTER TABLE sweeps ADD COLUMN sum INTEGER;
ALTER TABLE leases ADD COLUMN sum INTEGER;
ALTER TABLE trials ADD COLUMN sum INTEGER;
ALTER TABLE curves ADD COLUMN sum INTEGER;
ALTER TABLE predictions ADD COLUMN sum INTEGER;
