-- Times are nanoseconds since 1970 in UTC, NULL where there is none.
-- Bodies are JSON text, to be read by people; learned states are blobs.
-- To read a time:  SELECT datetime(at / 1000000000, 'unixepoch') FROM journal;

CREATE TABLE settings (
	key   TEXT PRIMARY KEY,
	value BLOB NOT NULL
);

-- How far each source (a log file, a journal) has been read.
CREATE TABLE positions (
	source  TEXT PRIMARY KEY,
	updated INTEGER NOT NULL,
	body    TEXT NOT NULL
);

-- Messages that the parser has begun to join and not finished.
CREATE TABLE messages (
	key     INTEGER PRIMARY KEY, -- the parser's uint64, as a signed number
	updated INTEGER NOT NULL,
	state   BLOB NOT NULL
);

-- What the detector has learned about each account.
CREATE TABLE accounts (
	id      INTEGER PRIMARY KEY,
	account TEXT NOT NULL UNIQUE,
	updated INTEGER NOT NULL, -- before state, so that pruning need not read the blob
	state   BLOB NOT NULL
);

CREATE TABLE findings (
	id      TEXT PRIMARY KEY,
	rule    TEXT NOT NULL,
	subject TEXT NOT NULL,
	at      INTEGER, -- the finding's own time
	body    TEXT NOT NULL
);
CREATE INDEX findings_at ON findings (at);
CREATE INDEX findings_subject ON findings (subject, at);

-- A decision, what came of it, and how it ended.
CREATE TABLE decisions (
	id         TEXT PRIMARY KEY,
	finding    TEXT NOT NULL,
	subject    TEXT NOT NULL,
	action     TEXT NOT NULL,
	enforce    INTEGER NOT NULL, -- 1: to be carried out; 0: only proposed
	at         INTEGER,
	until      INTEGER, -- NULL: until a person ends it
	body       TEXT NOT NULL,
	outcome_at INTEGER, -- NULL: not known to have been done
	outcome_ok INTEGER,
	outcome    TEXT,
	ended_at   INTEGER, -- NULL: stands
	ended_by   TEXT,
	ended_why  TEXT
);
CREATE INDEX decisions_subject ON decisions (subject, at);
CREATE INDEX decisions_finding ON decisions (finding);
CREATE INDEX decisions_at ON decisions (at);
CREATE INDEX decisions_standing ON decisions (at, id) WHERE enforce = 1 AND ended_at IS NULL;

-- Who did what to whom, why, and what came of it. Rows are only added.
CREATE TABLE journal (
	seq      INTEGER PRIMARY KEY AUTOINCREMENT,
	at       INTEGER,
	what     TEXT NOT NULL,
	who      TEXT NOT NULL,
	subject  TEXT NOT NULL,
	action   TEXT NOT NULL,
	decision TEXT NOT NULL,
	why      TEXT NOT NULL,
	outcome  TEXT NOT NULL
);
CREATE INDEX journal_at ON journal (at);
CREATE INDEX journal_subject ON journal (subject, seq);

-- What operators taught; the detector has learned it once learned_at is set.
CREATE TABLE releases (
	key        TEXT PRIMARY KEY,
	subject    TEXT NOT NULL,
	at         INTEGER,
	by         TEXT NOT NULL,
	why        TEXT NOT NULL,
	learned_at INTEGER
);
CREATE INDEX releases_pending ON releases (at) WHERE learned_at IS NULL;

CREATE TABLE incidents (
	id      TEXT PRIMARY KEY,
	open    INTEGER NOT NULL,
	updated INTEGER,
	body    TEXT NOT NULL
);
CREATE INDEX incidents_open ON incidents (updated) WHERE open = 1;
CREATE INDEX incidents_updated ON incidents (updated);

-- Messages to people, kept until their channel took them.
CREATE TABLE outbox (
	id       TEXT PRIMARY KEY,
	channel  TEXT NOT NULL,
	body     TEXT NOT NULL,
	created  INTEGER NOT NULL,
	next     INTEGER NOT NULL, -- not before
	attempts INTEGER NOT NULL DEFAULT 0,
	error    TEXT NOT NULL DEFAULT '',
	sent_at  INTEGER,
	dead_at  INTEGER -- given up
);
CREATE INDEX outbox_unsent ON outbox (next) WHERE sent_at IS NULL;
