package app

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/test/loggen"
)

// BenchmarkReplay is what `make pgo` profiles: half of it Postfix, half Exim.
func BenchmarkReplay(b *testing.B) {
	var logs []string
	for _, format := range []loggen.Format{loggen.Postfix, loggen.Exim} {
		path := filepath.Join(b.TempDir(), string(format)+".log")
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := loggen.Write(f, loggen.Options{Format: format, Lines: 200_000, Accounts: 2000, Shops: 40, Seed: 1}); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
		logs = append(logs, path)
	}
	for b.Loop() {
		for _, path := range logs {
			o := ReplayOptions{Config: config.Default(), Paths: []string{path}, Out: io.Discard, Err: io.Discard, Now: time.Now()}
			if err := Replay(b.Context(), o); err != nil {
				b.Fatal(err)
			}
		}
	}
}
