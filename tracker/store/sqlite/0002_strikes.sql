-- How often prompts were refused of late. Nothing of what they said is kept.

CREATE TABLE strikes (
    who    TEXT PRIMARY KEY,                -- an account, a hash of an address block; behind it a service's user
    count  INTEGER NOT NULL,                -- as it stood at the last one
    last   INTEGER NOT NULL,                -- when that was
    until  INTEGER NOT NULL                 -- until then nothing is taken from them
) STRICT, WITHOUT ROWID;
