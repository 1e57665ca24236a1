-- Version 5: sweeps share workers.

ALTER TABLE sweeps ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sweeps ADD COLUMN weight REAL NOT NULL DEFAULT 1.0;
