-- What changed about block lists and about us on them, in order. The body is
-- the whole event as JSON.
CREATE TABLE listings (
	id      INTEGER PRIMARY KEY,
	at      INTEGER NOT NULL,
	kind    TEXT NOT NULL,
	list    TEXT NOT NULL,
	subject TEXT NOT NULL, -- empty: it is about the list
	ends    INTEGER NOT NULL, -- 1: the subject is not on the list any more
	passing INTEGER NOT NULL, -- 1: it says nothing any more once there is a later change
	body    BLOB NOT NULL
);
CREATE INDEX listings_by_subject ON listings (subject, list, id);
CREATE INDEX listings_ends ON listings (subject, list, id) WHERE ends;
CREATE INDEX listings_by_time ON listings (at);
