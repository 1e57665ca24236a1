-- Version 2: what computed a trial, the predictions and the weights it kept, the files that a sweep names.

ALTER TABLE trials ADD COLUMN isa TEXT NOT NULL DEFAULT '';
ALTER TABLE trials ADD COLUMN weights BLOB;     -- BLAKE3 of a kept file
ALTER TABLE sweeps ADD COLUMN files BLOB NOT NULL DEFAULT x''; -- FilePin messages of the wire, each with its length

-- Of trials that predicted something.
CREATE TABLE predictions (
    sweep  INTEGER NOT NULL,
    cell   INTEGER NOT NULL,
    repeat INTEGER NOT NULL,
    data   BLOB NOT NULL,        -- u32 count, u64 steps, one byte per step and probe point
    PRIMARY KEY (sweep, cell, repeat)
);
