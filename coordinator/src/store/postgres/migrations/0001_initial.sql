-- Version 1. Forward only: a later version adds a file of its own.

CREATE TABLE meta (
    key   text PRIMARY KEY,
    value bigint NOT NULL
);

INSERT INTO meta VALUES ('schema', 0), ('next_lease', 1);

-- The coordinator that may write. Whatever is written checks the epoch, in the same transaction.
CREATE TABLE leader (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch      bigint NOT NULL,      -- how often a coordinator began to lead
    commits    bigint NOT NULL,      -- transactions of this epoch, so that one whose fate is unknown can be looked up
    holder     text NOT NULL,        -- its machine and process, for people
    url        text NOT NULL         -- its address
);

INSERT INTO leader VALUES (true, 0, 0, '', '');

-- Until when it leads, by the clock of the database. Apart from the row above, which a long transaction keeps locked.
CREATE TABLE term (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

INSERT INTO term VALUES (true, 0, '-infinity');

CREATE TABLE sweeps (
    number      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    id          text NOT NULL UNIQUE,
    file        text NOT NULL,
    text        text NOT NULL,
    settings    text NOT NULL,             -- JSON list of strings
    data_hash   bytea,
    data_train  bigint NOT NULL,
    data_words  text NOT NULL,
    state       bigint NOT NULL,           -- 1 running, 2 completed, 3 cancelled, 4 paused
    launched_at double precision NOT NULL,
    files       bytea NOT NULL,            -- FilePin messages of the wire, each with its length
    -- How it shares workers with others.
    priority    bigint NOT NULL,
    weight      double precision NOT NULL,
    -- What happened to it besides its rows, counted in the transactions in which it happened.
    releases    bigint NOT NULL DEFAULT 0, -- leases that ended with trials left
    duplicates  bigint NOT NULL DEFAULT 0, -- results compared with a row
    mismatches  bigint NOT NULL DEFAULT 0, -- of these, different ones
    fenced      bigint NOT NULL DEFAULT 0  -- batches under a fence that held no more
);

CREATE TABLE leases (
    lease  bigint PRIMARY KEY,
    epoch  bigint NOT NULL,
    sweep  bigint NOT NULL,
    class  bigint NOT NULL,
    worker text NOT NULL,
    trials bytea NOT NULL          -- pairs of u64: start, exclusive end
);

-- One row per trial that has ended.
CREATE TABLE trials (
    sweep   bigint NOT NULL,
    cell    bigint NOT NULL,
    repeat  bigint NOT NULL,
    outcome bigint NOT NULL,       -- 1 completed, 2 diverged, 3 failed
    step    bigint,                -- of a divergence
    cause   text,                  -- of a failure
    steps   bigint NOT NULL,
    seconds double precision NOT NULL,
    worker  text NOT NULL,
    digest  bytea NOT NULL,
    metrics bytea NOT NULL,        -- f64
    isa     text NOT NULL,
    weights bytea,                 -- BLAKE3 of a kept file
    -- Of its curve.
    curve   bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (sweep, cell, repeat),
    UNIQUE (curve)
);

-- Appended only; read by those who ask for curves.
CREATE TABLE curves (
    curve bigint PRIMARY KEY,
    data  bytea NOT NULL           -- u32 count, u64 steps, f64 rows
);

-- Of trials that predicted something.
CREATE TABLE predictions (
    sweep  bigint NOT NULL,
    cell   bigint NOT NULL,
    repeat bigint NOT NULL,
    data   bytea NOT NULL,         -- u32 count, u64 steps, one byte per step and probe point
    PRIMARY KEY (sweep, cell, repeat)
);

-- What became of trials before they were run again.
CREATE TABLE attempts (
    sweep   bigint NOT NULL,
    cell    bigint NOT NULL,
    repeat  bigint NOT NULL,
    attempt bigint NOT NULL,       -- 0, 1, 2, …
    cause   text,
    worker  text NOT NULL,
    seconds double precision NOT NULL,
    PRIMARY KEY (sweep, cell, repeat, attempt)
);
