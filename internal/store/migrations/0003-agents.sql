-- The hub: the agents that may speak to it.
CREATE TABLE agents (
	name        TEXT PRIMARY KEY,
	domains     TEXT NOT NULL, -- a JSON array; ["*"]: all
	added       INTEGER NOT NULL,
	token       BLOB,    -- SHA-256 of the one-time token; NULL: used
	token_until INTEGER NOT NULL,
	enrolment   TEXT NOT NULL, -- of which its certificates are; empty: it has not enrolled yet
	enrolled    INTEGER,
	revoked     INTEGER
);

-- An agent: the batches that it has made, until the hub has had them for a day.
CREATE TABLE spool (
	seq     INTEGER PRIMARY KEY,
	made    INTEGER NOT NULL,
	events  INTEGER NOT NULL,
	body    BLOB NOT NULL
);
