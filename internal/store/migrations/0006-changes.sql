-- What the latest commits of many said of messages and accounts, in a row or a few
-- for each, until a later commit puts what still holds into their tables.
CREATE TABLE changes (
	seq  INTEGER PRIMARY KEY,
	at   INTEGER NOT NULL, -- "updated" in the tables
	body BLOB NOT NULL
);

-- A program of before knows no changes. This one leaves it none if it is stopped;
-- if it was killed, what was learned since the last rows got into the tables, on a
-- busy server a minute ago, is lost to the other. Where that
-- moves a position on, the changes are out of date.
ALTER TABLE positions ADD COLUMN moves INTEGER NOT NULL DEFAULT 0;
CREATE TRIGGER positions_begun AFTER INSERT ON positions WHEN NEW.moves = 0 BEGIN
	DELETE FROM changes;
END;
CREATE TRIGGER positions_moved AFTER UPDATE ON positions WHEN NEW.moves = OLD.moves BEGIN
	DELETE FROM changes;
END;
