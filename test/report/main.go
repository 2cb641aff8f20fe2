// Command report reads what "go test -json" writes and tells what matters:
// each package's result, everything about what failed, and at the end the
// tests that were left out, with the reason.
//
//	go test -json ./... | go run ./test/report
//
// It exits with 1 if anything failed or if there was nothing to read.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// An event is one line of go test -json; see "go doc test2json".
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output, instead of Package
	Test       string
	Elapsed    float64
	Output     string
}

// A name is a test, or a package where Test is empty.
type name struct{ Package, Test string }

type results struct {
	out                     io.Writer
	said                    map[name]*strings.Builder // what each test has written so far
	passed, failed, skipped int
	packages                int
	leftOut                 []string
}

func report(in io.Reader, out io.Writer) (ok bool, err error) {
	r := &results{out: out, said: map[name]*strings.Builder{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, err
		}
	}
	if len(r.leftOut) > 0 {
		fmt.Fprintf(out, "\nleft out, %d tests:\n%s", r.skipped, strings.Join(r.leftOut, ""))
	}
	fmt.Fprintf(out, "\n%d tests passed, %d failed, %d left out\n", r.passed, r.failed, r.skipped)
	return r.failed == 0 && r.packages > 0, nil
}

func (r *results) line(line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		fmt.Fprintf(r.out, "%s", line) // the go command itself has something to say
		return
	}
	who := name{e.Package, e.Test}
	switch e.Action {
	case "output":
		if r.said[who] == nil {
			r.said[who] = &strings.Builder{}
		}
		r.said[who].WriteString(e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "pass", "fail", "skip":
		r.finished(who, e)
	}
}

// finished tells how a test or a package ended.
func (r *results) finished(who name, e event) {
	said := ""
	if b := r.said[who]; b != nil {
		said = b.String()
		delete(r.said, who)
	}
	if who.Test == "" {
		r.packageFinished(who, e, said)
		return
	}
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		fmt.Fprintf(r.out, "%s: %s", who.Package, said)
	case "skip":
		r.skipped++
		r.leftOut = append(r.leftOut, fmt.Sprintf("  %s %s: %s\n", who.Package, who.Test, reason(said)))
	}
}

func (r *results) packageFinished(who name, e event, said string) {
	r.packages++
	switch e.Action {
	case "pass":
		fmt.Fprintf(r.out, "ok    %-60s %6.1fs\n", who.Package, e.Elapsed)
	case "fail":
		r.failed++ // also where no test did: a panic, a time-out, a package that does not build
		fmt.Fprintf(r.out, "%sFAIL  %s\n", said, who.Package)
		r.unfinished(who.Package)
	}
}

// unfinished tells what the tests said that a dying package cut short.
func (r *results) unfinished(pkg string) {
	for who, said := range r.said {
		if who.Package == pkg {
			fmt.Fprintf(r.out, "%s %s, unfinished:\n%s", pkg, who.Test, said)
			delete(r.said, who)
		}
	}
}

// reason is what a skipped test gave as its reason: its output without the
// lines of the testing package, and without the place.
func reason(said string) string {
	var why []string
	for line := range strings.SplitSeq(said, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- ") {
			continue
		}
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			_, line, _ = strings.Cut(text, ": ")
		}
		why = append(why, line)
	}
	return strings.Join(why, " ")
}
