-- What workers may go by, as it stood when a request was taken in; and what names askers to workers.

ALTER TABLE requests ADD COLUMN labels TEXT NOT NULL DEFAULT '';        -- of the prompt filter, between spaces
ALTER TABLE requests ADD COLUMN service TEXT NOT NULL DEFAULT '';       -- a service's name, as people see it
ALTER TABLE requests ADD COLUMN give_back INTEGER NOT NULL DEFAULT 0;   -- the class of who asks

-- By it the pseudonyms are made under which each worker knows accounts (`tracker.pseudonyms`).
CREATE TABLE pseudonyms (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    secret  BLOB NOT NULL
) STRICT;

INSERT INTO pseudonyms VALUES (1, randomblob(32));
