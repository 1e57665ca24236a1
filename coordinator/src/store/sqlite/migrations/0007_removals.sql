-- Version 7: sweeps can be removed, their rows bit by bit.

-- Sweeps without a row of their own, of whose trials some may still have rows.
CREATE TABLE removals (
    sweep INTEGER PRIMARY KEY
);

-- Whether a kept file is still named by a trial.
CREATE INDEX trials_by_weights ON trials (weights) WHERE weights IS NOT NULL;
