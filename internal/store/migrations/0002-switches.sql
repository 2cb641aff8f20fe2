-- What was set for an account at a panel or by a program, and has to be taken
-- back. Written before it is set.
CREATE TABLE switches (
	switch  TEXT NOT NULL,
	subject TEXT NOT NULL,
	action  TEXT NOT NULL,
	undo    TEXT NOT NULL, -- how it was before
	done    INTEGER NOT NULL, -- 0: perhaps
	PRIMARY KEY (switch, subject, action)
);
