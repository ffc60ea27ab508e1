-- All that a tracker must not forget. Times are milliseconds since 1970 (UTC), kudos are thousandths, digests are
-- SHA-256 of the signed bytes, keys are 32 bytes, job handles 16. No prompt is ever stored: a request holds only the
-- digest of its private part.
--
-- Rows lie in the order in which they came, and keys that are random (handles, digests, nonces) in indexes: a job
-- writes the same few pages as those that came with it, and one page of its own in each index of the tables below.
-- So no table has more indexes than the tracker looks things up by; what only an audit asks for has none.

CREATE TABLE horde (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    root        BLOB NOT NULL,
    delegation  BLOB NOT NULL,              -- the root's `serving` document
    epoch       INTEGER NOT NULL DEFAULT 0, -- raised by each restore from a backup
    faults_from INTEGER NOT NULL DEFAULT 0, -- of `faults` all after this moment is here
    shares_from INTEGER NOT NULL DEFAULT 0  -- of `mint_shares` all from this day on is here
) STRICT;

CREATE TABLE rules (
    version   INTEGER PRIMARY KEY,
    digest    BLOB NOT NULL UNIQUE,
    document  BLOB NOT NULL
) STRICT;

-- A cache of sums over the postings, compared by audit; earned, spent and taken_free count since the beginning.
CREATE TABLE accounts (
    account        INTEGER PRIMARY KEY,
    since          INTEGER NOT NULL,
    balance        INTEGER NOT NULL DEFAULT 0,
    held           INTEGER NOT NULL DEFAULT 0,
    earned         INTEGER NOT NULL DEFAULT 0,
    spent          INTEGER NOT NULL DEFAULT 0,
    taken_free     INTEGER NOT NULL DEFAULT 0,
    free_now       INTEGER NOT NULL DEFAULT 0,  -- free work taken, as it had decayed at free_at
    free_at        INTEGER NOT NULL DEFAULT 0,
    jobs_done      INTEGER NOT NULL DEFAULT 0,
    jobs_received  INTEGER NOT NULL DEFAULT 0,
    jobs_free      INTEGER NOT NULL DEFAULT 0,  -- those of jobs_received of which others carried a part
    under_way      INTEGER NOT NULL DEFAULT 0,  -- of jobs that have not ended: those it pays for, and its attempts
    withheld       INTEGER NOT NULL DEFAULT 0,  -- earned, and not its own until it is trusted
    trusted        INTEGER NOT NULL DEFAULT 0,  -- since when; 0: not yet
    fault          INTEGER NOT NULL DEFAULT 0,  -- when one of its attempts was refunded last
    given          INTEGER NOT NULL DEFAULT 0,  -- to other accounts, since the beginning
    given_day      INTEGER NOT NULL DEFAULT 0,  -- the last day on which it gave any
    given_today    INTEGER NOT NULL DEFAULT 0   -- and how much on that day
) STRICT;

-- The one key of each account, and those that it had before.
CREATE TABLE keys (
    key      BLOB NOT NULL,
    account  INTEGER NOT NULL REFERENCES accounts,
    since    INTEGER NOT NULL,
    until    INTEGER NOT NULL DEFAULT 0,    -- when it ceased to be; 0: it is the account's key
    begun    BLOB NOT NULL DEFAULT x'',     -- digest of the rotation by which it came; none where it registered
    ended    BLOB NOT NULL DEFAULT x''      -- digest of the rotation or leaving by which it went
) STRICT;

CREATE INDEX keys_by_key ON keys (key);
CREATE UNIQUE INDEX keys_now ON keys (key) WHERE until = 0;
CREATE UNIQUE INDEX keys_of_account ON keys (account) WHERE until = 0;

-- Keys that act for an account, and that did. used: thousandths held or spent through it, as the holds of its jobs say.
CREATE TABLE delegations (
    delegation  BLOB PRIMARY KEY,           -- digest of the document
    account     INTEGER NOT NULL REFERENCES accounts,
    signer      BLOB NOT NULL,
    nonce       BLOB NOT NULL,
    delegate    BLOB NOT NULL,
    since       INTEGER NOT NULL,
    until       INTEGER NOT NULL DEFAULT 0,
    ended       BLOB NOT NULL DEFAULT x'',  -- digest of the revocation, newer delegation or leaving by which it went
    used        INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX delegations_by_delegate ON delegations (delegate);
CREATE UNIQUE INDEX delegations_now ON delegations (delegate) WHERE until = 0;
CREATE INDEX delegations_of_account ON delegations (account) WHERE until = 0;

-- How accounts are shown, and the keys kept apart that can sign a rotation: the newest document of each.
CREATE TABLE profiles (
    account  INTEGER PRIMARY KEY REFERENCES accounts,
    version  INTEGER NOT NULL,
    signer   BLOB NOT NULL,
    digest   BLOB NOT NULL,
    name     TEXT NOT NULL,
    public   INTEGER NOT NULL,
    service  INTEGER NOT NULL
) STRICT;

CREATE INDEX profiles_of_services ON profiles (account) WHERE service = 1;

CREATE TABLE recoveries (
    account   INTEGER PRIMARY KEY REFERENCES accounts,
    version   INTEGER NOT NULL,
    signer    BLOB NOT NULL,
    digest    BLOB NOT NULL,
    recovery  BLOB NOT NULL
) STRICT;

-- Codes by which one key each becomes an account; of a code only its hash is known here.
CREATE TABLE invites (
    hash     BLOB PRIMARY KEY,
    made     INTEGER NOT NULL,
    used     INTEGER NOT NULL DEFAULT 0,    -- when
    account  INTEGER REFERENCES accounts    -- the one that it made
) STRICT, WITHOUT ROWID;

-- Evidence, byte for byte as it was signed. What is said of one attempt lies together in the index.
CREATE TABLE documents (
    digest    BLOB NOT NULL,
    signer    BLOB NOT NULL,
    kind      TEXT NOT NULL,
    identity  BLOB NOT NULL,                -- nonce; or job and attempt; or version
    raw       BLOB NOT NULL,
    UNIQUE (identity, kind, signer)
) STRICT;

-- Proof that a key signed two different things under one identity: of a document the first that contradicts it, so
-- that nobody fills the disk by contradicting itself.
CREATE TABLE equivocations (
    digest  BLOB PRIMARY KEY,
    first   BLOB NOT NULL UNIQUE,           -- digest of the document that was taken
    taken   INTEGER NOT NULL,
    raw     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Found by its signer and nonce through its document.
CREATE TABLE requests (
    request         BLOB NOT NULL UNIQUE,   -- digest of the document
    signer          BLOB NOT NULL,
    nonce           BLOB NOT NULL,
    job_key         BLOB NOT NULL UNIQUE,
    payer           INTEGER NOT NULL REFERENCES accounts,
    origin          TEXT NOT NULL,          -- whom fairness and limits count: the account, or a block of addresses
    public          BLOB NOT NULL,
    private_digest  BLOB NOT NULL,
    delegation      BLOB NOT NULL DEFAULT x'', -- digest of the one by which its signer asked for the payer
    user            BLOB NOT NULL DEFAULT x''  -- a service's pseudonym of its user
) STRICT;

CREATE TABLE jobs (
    job        BLOB NOT NULL UNIQUE,
    request    BLOB NOT NULL REFERENCES requests (request),
    number     INTEGER NOT NULL,            -- which of the request's n
    state      TEXT NOT NULL CHECK (state IN ('waiting', 'leased', 'delivered', 'settled', 'refunded', 'cancelled',
                                              'expired', 'failed')),
    reason     TEXT NOT NULL DEFAULT '',    -- why it ended
    attempt    INTEGER NOT NULL DEFAULT 0,  -- the latest
    failed     INTEGER NOT NULL DEFAULT 0,  -- attempts that count towards the limit
    held       INTEGER NOT NULL,            -- what the hold still contains
    score      INTEGER NOT NULL,            -- rank, fixed at admission
    anonymous  INTEGER NOT NULL,
    admitted   INTEGER NOT NULL,
    changed    INTEGER NOT NULL,            -- since when it has been in this state
    waited     INTEGER NOT NULL DEFAULT 0,  -- how long it waited before that
    cancelled  INTEGER NOT NULL DEFAULT 0,  -- when the requester called it off
    excluded   BLOB NOT NULL DEFAULT x'',   -- keys of workers that shall not get it again, one after the other
    settled    INTEGER NOT NULL DEFAULT 0,  -- the attempt that was paid
    carried    INTEGER NOT NULL DEFAULT 0,  -- whether the kudos behind it did not cover its price
    signer     BLOB NOT NULL                -- of the request
) STRICT;

CREATE INDEX jobs_by_request ON jobs (request, number);
-- What a peer has under way is asked at each of its connections: it must not cost more the more it has asked for
-- before. A tracker that starts reads all of it.
CREATE INDEX jobs_open ON jobs (signer, request) WHERE state IN ('waiting', 'leased', 'delivered');

CREATE TABLE attempts (
    job         BLOB NOT NULL REFERENCES jobs (job),
    attempt     INTEGER NOT NULL,
    worker      BLOB NOT NULL,
    owner       INTEGER NOT NULL REFERENCES accounts,
    model       TEXT NOT NULL,
    lease       BLOB NOT NULL,              -- digest
    stage       TEXT NOT NULL CHECK (stage IN ('pushed', 'accepted', 'opened', 'ended')),
    issued      INTEGER NOT NULL,
    deadline    INTEGER NOT NULL,
    rules       INTEGER NOT NULL,
    price       INTEGER NOT NULL,
    paid        INTEGER NOT NULL,
    free        INTEGER NOT NULL,           -- minted for the worker if it is settled in full
    uncovered   INTEGER NOT NULL,           -- what of the price the hold did not cover
    tax         INTEGER NOT NULL,           -- what of the tax the hold covers
    reserved    INTEGER NOT NULL,           -- what of the day's budget is set aside for it now
    receipt     BLOB NOT NULL DEFAULT x'',  -- digest
    UNIQUE (job, attempt)
) STRICT;

-- What the daily budget still bears: reserved for leases, minted by settlements.
CREATE TABLE mint_days (
    day       INTEGER PRIMARY KEY,
    reserved  INTEGER NOT NULL DEFAULT 0,
    minted    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The same for each one that it is shared among: `owner ACCOUNT` of workers, `asker ORIGIN` of requests;
-- and under `paid ACCOUNT` what people with kudos paid an owner, which widens its share. Rows of days
-- long past, of which nothing is under way any more, are dropped: the ledger holds what they were counted from.
CREATE TABLE mint_shares (
    day       INTEGER NOT NULL,
    whose     TEXT NOT NULL,
    reserved  INTEGER NOT NULL DEFAULT 0,
    minted    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (day, whose)
) STRICT, WITHOUT ROWID;

-- Refunds against an owner's workers, which stand against its trust. They are dropped when they do so no more.
CREATE TABLE faults (
    account  INTEGER NOT NULL REFERENCES accounts,
    time     INTEGER NOT NULL,
    entry    INTEGER NOT NULL,              -- the refund
    PRIMARY KEY (account, time, entry)
) STRICT, WITHOUT ROWID;

-- The newest kudos that the operator made for somebody: what anybody can read. Older ones are in the ledger alone.
CREATE TABLE awards (
    entry    INTEGER PRIMARY KEY,
    account  INTEGER NOT NULL REFERENCES accounts,
    amount   INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    reason   TEXT NOT NULL
) STRICT;

-- The ledger: append-only, leaf by leaf.
CREATE TABLE entries (
    entry     INTEGER PRIMARY KEY,
    leaf      BLOB NOT NULL,
    hash      BLOB NOT NULL,
    evidence  BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    size      INTEGER PRIMARY KEY,
    document  BLOB NOT NULL
) STRICT;

-- Settlements of former serving keys that were entered again after a restore.
CREATE TABLE recovered (
    settlement  BLOB PRIMARY KEY,           -- digest
    signer      BLOB NOT NULL,
    entry       INTEGER NOT NULL,
    charged     INTEGER,                    -- the entry by which its payer was charged
    day         INTEGER NOT NULL,           -- whose mint it took
    minted      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX recovered_by_day ON recovered (signer, day);
