-- Archives: files into which the evidence of jobs that ended long ago has moved. Leaves and their hashes stay in
-- `entries`; where the evidence of one has moved, it is empty there.

CREATE TABLE archives (
    number    INTEGER PRIMARY KEY,           -- from 1
    size      INTEGER NOT NULL UNIQUE,       -- entries up to its end: an audit can begin there
    name      TEXT NOT NULL,                 -- of its file
    bytes     INTEGER NOT NULL,              -- the file's size
    document  BLOB NOT NULL,                 -- the signed `balances`
    books     BLOB NOT NULL,                 -- from what an audit goes on there, as `balances` binds it
    state     TEXT NOT NULL CHECK (state IN ('moving', 'moved', 'back'))  -- back: in a copy that has all of it again
) STRICT;
