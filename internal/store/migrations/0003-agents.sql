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

-- Who may use the API beside the service's own token. A revoked one stays, so
-- that its name in the journal means one person.
CREATE TABLE tokens (
	name    TEXT PRIMARY KEY,
	role    TEXT NOT NULL, -- viewer, operator, admin
	hash    BLOB NOT NULL UNIQUE, -- SHA-256
	added   INTEGER NOT NULL,
	revoked INTEGER
);
