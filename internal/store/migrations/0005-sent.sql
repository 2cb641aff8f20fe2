-- What is known of messages that left, for complaints about them: each row is
-- what changed, in order.
CREATE TABLE sent (
	id   INTEGER PRIMARY KEY,
	at   INTEGER NOT NULL,
	body BLOB NOT NULL
);
CREATE INDEX sent_by_time ON sent (at);
