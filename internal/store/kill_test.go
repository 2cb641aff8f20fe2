package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// victimPath makes the test binary a program that commits batches to the
// database of that name until it is killed.
const victimPath = "VEDETTA_TEST_VICTIM"

const victimAccounts = 300

func TestMain(m *testing.M) {
	if path := os.Getenv(victimPath); path != "" {
		fmt.Fprintln(os.Stderr, victim(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// victim commits one batch after the other and prints the number of each
// once it is acknowledged.
func victim(path string) error {
	ctx := context.Background()
	db, err := Open(ctx, path)
	if err != nil {
		return err
	}
	db.changes.age = 0 // so that each commit puts what is there into the tables
	positions, err := db.LoadPositions(ctx)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(positions["mail.log"]))
	for {
		n++
		if _, err := db.Commit(ctx, batch(n, victimAccounts)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

// TestKill kills a committing program 20 times at random moments. Every
// batch that it acknowledged is there, and none is there by half.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vedetta.db")
	known := 0
	for round := range 20 {
		acknowledged := killed(t, path)
		db, err := Open(t.Context(), path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		n := whole(t, db, victimAccounts)
		if n < max(acknowledged, known) {
			t.Fatalf("round %d: %d batches are there, %d were acknowledged", round, n, max(acknowledged, known))
		}
		t.Logf("round %d: %d batches acknowledged, %d there", round, acknowledged, n)
		known = n
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if known < 20 {
		t.Errorf("only %d batches were committed in 20 rounds", known)
	}
}

// killed runs the victim, kills it a random moment after it started or after
// one of its first acknowledgements, and returns the last number it printed.
func killed(t *testing.T, path string) (acknowledged int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), victimPath+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { time.AfterFunc(rand.N(20*time.Millisecond), func() { _ = cmd.Process.Kill() }) }
	wait := rand.IntN(12)
	if wait == 0 {
		kill()
	}
	for lines := bufio.NewScanner(out); lines.Scan(); wait-- {
		if acknowledged, err = strconv.Atoi(lines.Text()); err != nil {
			t.Fatal(err)
		}
		if wait == 1 {
			kill() // what it acknowledges until it is dead counts too
		}
	}
	_ = cmd.Wait() // it was killed
	return acknowledged
}
