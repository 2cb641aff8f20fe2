package mailq

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// each returns what a pass over a queue yields, a line a message, sorted.
func each(t *testing.T, f func(yield func(QueueHead) bool) error) []string {
	t.Helper()
	var all []string
	err := f(func(h QueueHead) bool {
		all = append(all, strings.TrimSpace(fmt.Sprintln(h.ID, h.Queue, h.Login, h.UID, h.Rcpts, h.Size, h.Arrival.Unix(), h.Held)))
		return true
	})
	if err != nil {
		t.Error(err)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestPostfixEach(t *testing.T) {
	dir := postfixDirs(t)
	at := time.Unix(1795336818, 0xABCDE*1000).UTC() // "ABCDE" is how directories are hashed
	id := func(i int) string { return longID(at, i) }
	for _, m := range []message{
		{"active", id(1), "alice@shop.test", "x@d.test", at},
		{"deferred/A/B/C", id(2), "bob@shop.test", "x@d.test", at},
		{"hold", id(3), "v\x00@shop.test", "x@d.test", at},
		{"deferred/1", "1795998C2C7", strings.Repeat("x", 400), "x@d.test", at},
		{"hold", "ALL", "alice@shop.test", "x@d.test", at},
	} {
		m.put(t, dir)
	}
	write(t, filepath.Join(dir, "incoming", id(90)), []byte("half-written"))
	if err := errors.Join(
		os.WriteFile(filepath.Join(dir, "active", id(91)), []byte("no envelope"), 0o700),
		os.Symlink(id(1), filepath.Join(dir, "active", id(92))),
		os.Symlink("gone", filepath.Join(dir, "active", id(93))),
		os.Mkdir(filepath.Join(dir, "active", id(94)), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	s := &PostfixSpool{Dir: dir}
	want := []string{
		fmt.Sprintf("1795998C2C7 deferred %q -1 1 0 1795336818 false", strings.Repeat("x", 320)),
		id(1) + " active alice@shop.test -1 1 0 1795336818 false",
		id(2) + " deferred bob@shop.test -1 1 0 1795336818 false",
		id(3) + ` hold "v?@shop.test" -1 1 0 1795336818 true`,
	}
	if got := each(t, func(yield func(QueueHead) bool) error { return s.Each(t.Context(), yield) }); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ids := []string{"", "..", "../hold/" + id(3), "ALL", id(3), "*", id(2), "1795998C2C7", "179599", "F", id(1) + "\n", id(1), id(90), id(92), strings.Repeat("A", 10_000)}
	if got := each(t, func(yield func(QueueHead) bool) error { return s.Look(t.Context(), ids, yield) }); !slices.Equal(got, want) {
		t.Errorf("looked up %q, want %q", got, want)
	}
	n := 0
	if err := s.Each(t.Context(), func(QueueHead) bool { n++; return n < 2 }); n != 2 || err != nil {
		t.Errorf("stopped after %d, %v; want 2", n, err)
	}
}

func TestEximEach(t *testing.T) {
	dir := t.TempDir()
	text := readFile(t, "testdata/spool/exim/frozen-bounce")
	for _, name := range []string{"input/i/1xV3Ei-0004Nn-1c-H", "input/1xV3Ej-0004Nn-1c-H", "input/1xV3Ek-00000004NnA-1cAz-H", "named/input/l/1xV3El-0004Nn-1c-H"} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), text)
		write(t, filepath.Join(dir, strings.TrimSuffix(name, "H")+"D"), []byte("1xV3Ei-0004Nn-1c-D\nbody\n"))
	}
	s := &EximSpool{Dir: dir}
	var want []string
	for _, id := range []string{"1xV3Ei-0004Nn-1c ", "1xV3Ej-0004Nn-1c ", "1xV3Ek-00000004NnA-1cAz ", "1xV3El-0004Nn-1c named"} {
		want = append(want, fmt.Sprintf("%s  -1 1 %d 1795337268 true", id, len(text)+24))
	}
	if got := each(t, func(yield func(QueueHead) bool) error { return s.Each(t.Context(), yield) }); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	ids := []string{"", "..", "-", "1xV3Ei-0004Nn-1c-H", "1xV3El-0004Nn-1c", "1xV3Ek-00000004NnA-1cAz", "1xV3Ej-0004Nn-1c", "1xV3Ei-0004Nn-1c", "../../1xV3Ei-000", "*"}
	if got := each(t, func(yield func(QueueHead) bool) error { return s.Look(t.Context(), ids, yield) }); !slices.Equal(got, want) {
		t.Errorf("looked up %q, want %q", got, want)
	}
}

func TestHeader(t *testing.T) {
	dir := t.TempDir()
	header := func(postfix bool, text string, limit int) string {
		t.Helper()
		path := filepath.Join(dir, "message")
		write(t, path, []byte(text))
		f := (&EximSpool{}).Header
		if postfix {
			f = (&PostfixSpool{}).Header
		}
		b, err := f(QueueHead{Path: path}, limit)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	const long = 16 << 10
	if got := header(true, string(readFile(t, "testdata/spool/postfix/held-login")), long); !strings.Contains(got, "\nSubject: ") || strings.Contains(got, "\n\n") || !strings.HasSuffix(got, "\n") {
		t.Errorf("Postfix: got %q", got)
	}
	if got := header(false, string(readFile(t, "testdata/spool/exim/login-and-acl-variables")), long); !strings.Contains(got, "Subject: ") || !strings.HasPrefix(got, "Received: ") || strings.Contains(got, "\n\n") {
		t.Errorf("Exim: got %q", got)
	}
	at := func(offset int, rest ...string) string { // a file whose content begins at an offset
		c := record('C', fmt.Sprintf("%15d %15d %15d", 7, offset, 1))
		return c + strings.Repeat("\x00", max(offset-len(c), 0)) + strings.Join(rest, "")
	}
	long3 := strings.Repeat("x", 30_000)
	for _, test := range []struct{ name, file, want string }{
		{"a header without a body", at(60, record('N', "A: b"), record('X', "")), "A: b\n"},
		{"a long line", at(60, record('L', "A: b"), record('L', ""), record('N', "c"), record('N', ""), record('N', "body")), "A: bc\n"},
		{"elsewhere", at(60, record('p', "              100"), strings.Repeat("?", 21), record('N', "A: b"), record('N', "")), "A: b\n"},
		{"in a circle", at(60, record('p', "               60")), ""},
		{"beyond the end", at(60, record('p', "            99999")), ""},
		{"too long", at(60, record('N', long3), record('N', "")), long3[:long]},
		{"cut", at(60, record('N', "A: b"), "N\x7fxx"), "A: b\n"},
		{"an endless record", at(60, record('N', "A: b"), "N\xff\xff\xff\xff\xff\xff"), "A: b\n"},
		{"nothing", "", "holds no envelope"},
		{"not a queue file", "Received: x", "holds no envelope"},
		{"no offset", record('C', "7"), "holds no envelope"},
	} {
		if got := header(true, test.file, long); got != test.want && !strings.HasSuffix(got, ": "+test.want) {
			t.Errorf("Postfix, %s: got %.100q, want %.100q", test.name, got, test.want)
		}
	}
	const top = "1xV3Ei-0004Nn-1c-H\nu 1 1\n<a@x.test>\n1700000000 0\nXX\n1\nb@y.test\n\n"
	for _, test := range []struct{ name, file, want string }{
		{"lines", top + "005  A: b\n" + "008* C: gone\n" + "008P D: e\n\tf\n", "A: b\nD: e\n\tf\n"},
		{"cut", top + "900  A: b\n", "A: b\n"},
		{"a number that is none", top + "0x5  A: b\n", ""},
		{"a number too large", top + "99999999999999999999  A: b\n", ""},
		{"the end of a line", top + "005", ""},
		{"no envelope", "x", ""},
	} {
		if got := header(false, test.file, long); got != test.want {
			t.Errorf("Exim, %s: got %q, want %q", test.name, got, test.want)
		}
	}
	if _, err := (&PostfixSpool{}).Header(QueueHead{Path: filepath.Join(dir, "gone")}, long); !errors.Is(err, ErrGone) {
		t.Errorf("a file that is gone: %v", err)
	}
}

// FuzzQueueFile reads whatever may stand in a queue's file.
func FuzzQueueFile(f *testing.F) {
	for _, name := range []string{"postfix/held-login", "postfix/deferred-local", "exim/login-and-acl-variables", "exim/frozen-bounce"} {
		f.Add(readFile(f, filepath.Join("testdata/spool", name)))
	}
	f.Add([]byte("1xV3Ei-0004Nn-1c-H\nu 1 1\n<a@x.test>\n1700000000 0\n-aclm _x 5\nabcde\nYN a@b.test\nNN c@d.test\n2\na@b.test\n\"x y\"@z.test\n\n005  A: b\n"))
	f.Add([]byte(record('C', fmt.Sprintf("%15d %15d %15d", 7, 51, 1)) + record('p', "51")))
	f.Fuzz(func(t *testing.T, file []byte) {
		for _, h := range []queueHead{parsePostfixHead(file), parseEximHead(file)} {
			if h.rcpts < 0 || h.size < 0 || h.uid < -1 || len(h.login) > maxAddress || len(h.sender) > maxAddress || len(h.user) > 64 || len(h.domains) > maxHeadDomains {
				t.Errorf("%+v of %q", h, file)
			}
			for _, text := range append(h.domains, h.login, h.sender, h.user) {
				if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
					t.Errorf("%q of %q", text, file)
				}
			}
		}
		const limit = 100
		if b, _ := postfixHeader(bytes.NewReader(file), limit); len(b) > limit {
			t.Errorf("a header of %d bytes of %q", len(b), file)
		}
		if b := eximHeader(file, limit); len(b) > limit {
			t.Errorf("a header of %d bytes of %q", len(b), file)
		}
	})
}
