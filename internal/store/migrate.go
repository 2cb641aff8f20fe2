package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"time"
)

// Each file brings the schema from the version before it to its own. A file
// that was part of a release is never changed. It only adds, so that the program
// of the release before can go on with the database after a rollback; one that
// cannot but break that sets PRAGMA user_version to its own number.
//
//go:embed migrations/*.sql
var migrations embed.FS

// applicationID marks the file as ours: "Vdta".
const applicationID = 0x56647461

// migrate runs the migrations that the file has not seen, each in its own
// transaction with its entry in the table of migrations.
func (db *DB) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql") // sorted by name
	if err != nil {
		return err
	}
	version, err := db.version(ctx)
	if err != nil {
		return err
	}
	var oldest int // schema that a program has to know
	if err := db.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&oldest); err != nil {
		return err
	}
	if oldest > len(files) {
		return fmt.Errorf("%w (schema %d; this version knows %d)", ErrNewer, version, len(files))
	}
	for ; version < len(files); version++ {
		if err := db.migrateTo(ctx, version+1, files[version]); err != nil {
			return err
		}
	}
	return nil
}

// version is the number of the last migration that the file has seen, 0 for
// an empty file. The file of another program is refused.
func (db *DB) version(ctx context.Context) (int, error) {
	var id, tables int
	if err := db.write.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return 0, err
	}
	if err := db.write.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return 0, err
	}
	switch {
	case tables == 0:
		return 0, nil
	case id != applicationID:
		return 0, fmt.Errorf("it belongs to another program (application id %d): name another file", id)
	}
	var version sql.NullInt64
	err := db.write.QueryRowContext(ctx, "SELECT max(version) FROM migrations").Scan(&version)
	return int(version.Int64), err
}

// migrateTo runs one migration, unless another process has just done so.
func (db *DB) migrateTo(ctx context.Context, version int, file string) error {
	script, err := migrations.ReadFile(file)
	if err != nil {
		return err
	}
	return db.update(ctx, file, func(tx *sql.Tx) error {
		if _, err := tx.Exec("CREATE TABLE IF NOT EXISTS migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER NOT NULL)"); err != nil {
			return err
		}
		done, err := changed(tx.Exec("INSERT OR IGNORE INTO migrations (version, name, at) VALUES (?, ?, ?)", version, file, time.Now().UnixNano()))
		if err != nil || done == 0 {
			return err
		}
		if _, err := tx.Exec(string(script)); err != nil {
			return err
		}
		_, err = tx.Exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
		return err
	})
}

// changed is the number of rows that a statement changed.
func changed(r sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := r.RowsAffected()
	return int(n), err
}
