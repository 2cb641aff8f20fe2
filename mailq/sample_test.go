package mailq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// postfixFile is a queue file of an authenticated message.
func postfixFile(login string, rcpts ...string) string {
	text := record('C', strings.Repeat(" ", 95)) + record('T', fmt.Sprintf("%d 0", spoolTime.Unix()-60)) + record('A', "sasl_username="+login) + record('S', login)
	for _, r := range rcpts {
		text += record('R', r)
	}
	return text + record('M', "")
}

// take samples a queue.
func take(t testing.TB, s interface {
	Sample(context.Context) (QueueSample, error)
}) QueueSample {
	t.Helper()
	q, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func writeMode(t testing.TB, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// What is no plain file is neither opened nor counted. A pipe that is opened
// for reading hangs until somebody writes to it.
func TestSpecialFiles(t *testing.T) {
	dir := postfixDirs(t)
	in := func(name string) string { return filepath.Join(dir, "deferred", name) }
	writeMode(t, in("4ABCDE1"), postfixFile("alice@shop.test", "x@d.test"), 0o700)
	secret := filepath.Join(dir, "secret")
	writeMode(t, secret, postfixFile("victim@shop.test", "x@d.test"), 0o700)
	l, err := net.Listen("unix", in("4ABCDE2"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, err := range []error{
		syscall.Mkfifo(in("4ABCDE3"), 0o700),
		syscall.Mkfifo(in("A"), 0o700), // named as a directory of a hashed queue is
		os.Symlink(secret, in("4ABCDE4")),
		os.Symlink(in(""), in("B")), // a circle
		os.Mkdir(in("4ABCDE5"), 0o700),
		os.WriteFile(in("C"), nil, 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	q := take(t, &PostfixSpool{Dir: dir, Now: spoolNow})
	if q.Total != 1 || !q.Exact || q.Opened != 1 || !cmp.Equal(q.ByAccount, exactly("alice@shop.test", 1)) {
		t.Errorf("got %+v, want the one message", q)
	}
}

// A file that cannot be understood is counted and nobody's, and the sample is
// an estimate; where most are like that, nothing is known.
func TestDamagedFiles(t *testing.T) {
	dir := postfixDirs(t)
	damaged := func(n int) {
		for i := range n {
			writeMode(t, filepath.Join(dir, "hold", fmt.Sprintf("4ABC%03X", i)), strings.Repeat("\x00", 100*i), 0o700)
		}
	}
	damaged(1)
	s := &PostfixSpool{Dir: dir, Now: spoolNow}
	if q := take(t, s); q.Total != 1 || q.Read != 0 || q.Exact || len(q.ByAccount) != 0 || q.Unowned != (Share{High: 1}) {
		t.Errorf("one damaged file: got %+v, want that nothing is known of one message", q)
	}
	for i := range 3 {
		writeMode(t, filepath.Join(dir, "hold", fmt.Sprintf("4BBC%03X", i)), postfixFile("alice@shop.test", "x@d.test"), 0o700)
	}
	if q := take(t, s); q.Total != 4 || q.Read != 3 || q.Exact || !cmp.Equal(q.ByAccount, []Share{{"alice@shop.test", 4, 3, 4}}) {
		t.Errorf("one of four is damaged: got %+v", q)
	}
	damaged(20)
	_, err := s.Sample(t.Context())
	if !errors.Is(err, errNoEnvelope) || !strings.Contains(err.Error(), filepath.Join(dir, "hold", "4ABC0")) {
		t.Errorf("most files are damaged: got %v, want one of them named", err)
	}
}

// asNobody does something with the rights of a user who has none. Only this
// thread's rights to files are taken away.
func asNobody(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		do()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setfsuid(0); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

func TestForbiddenQueue(t *testing.T) {
	postfix, exim := postfixDirs(t), t.TempDir()
	deferred, held := filepath.Join(postfix, "deferred"), filepath.Join(postfix, "hold", "4ABCDE1")
	writeMode(t, held, postfixFile("alice@shop.test", "x@d.test"), 0o700)
	input := filepath.Join(exim, "input")
	if err := os.Mkdir(input, 0o700); err != nil {
		t.Fatal(err)
	}
	open := func(mode fs.FileMode) {
		t.Helper()
		for _, name := range []string{"maildrop", "incoming", "active", "deferred", "hold"} {
			if err := os.Chmod(filepath.Join(postfix, name), mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Dir(postfix), 0o755); err != nil { // of this test
			t.Fatal(err)
		}
	}
	refused := func(s interface {
		Sample(context.Context) (QueueSample, error)
	}, want string) {
		t.Helper()
		asNobody(t, func() {
			if _, err := s.Sample(t.Context()); !errors.Is(err, fs.ErrPermission) || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
	open(0o755)
	if err := errors.Join(os.Chmod(deferred, 0), os.Chmod(input, 0)); err != nil {
		t.Fatal(err)
	}
	refused(&PostfixSpool{Dir: postfix}, "mailq: "+deferred+": permission denied: "+postfixRight)
	refused(&EximSpool{Dir: exim}, "mailq: "+input+": permission denied: "+eximRight)
	open(0o755)
	if err := os.Chmod(held, 0o100); err != nil {
		t.Fatal(err)
	}
	refused(&PostfixSpool{Dir: postfix}, "mailq: "+held+": permission denied: "+postfixRight)
	open(0o700)
}

// What is known of a message is what its file said last, and whose it is what
// the directory says now.
func TestChangedFiles(t *testing.T) {
	dir := postfixDirs(t)
	path := filepath.Join(dir, "deferred", "4ABCDE1")
	writeMode(t, path, postfixFile("alice@shop.test", "x@d1.test", "x@d2.test"), 0o700)
	users := &Directory{}
	s := &PostfixSpool{Dir: dir, Now: spoolNow, Canonical: func(login string) Account { return users.Canonical(login) }}
	check := func(when string, opened int, account string, domains ...any) {
		t.Helper()
		q := take(t, s)
		if q.Opened != opened || !cmp.Equal(q.ByAccount, exactly(account, 1)) || !cmp.Equal(q.ByDestination, exactly(domains...)) {
			t.Errorf("%s: opened %d, got %v to %v", when, q.Opened, q.ByAccount, q.ByDestination)
		}
	}
	check("first", 1, "alice@shop.test", "d1.test", 1, "d2.test", 1)
	moved := filepath.Join(dir, "active", "4ABCDE1")
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	check("moved", 0, "alice@shop.test", "d1.test", 1, "d2.test", 1)
	users = &Directory{Aliases: map[string]string{"alice@shop.test": "anna@shop.test"}}
	check("another directory", 0, "anna@shop.test", "d1.test", 1, "d2.test", 1)

	text := strings.Replace(postfixFile("alice@shop.test", "x@d1.test", "x@d2.test"), "R\x09x@d1", "D\x09x@d1", 1)
	writeMode(t, moved, text, 0o700)
	if err := os.Chtimes(moved, time.Time{}, spoolTime.Add(time.Hour)); err != nil { // the next attempt
		t.Fatal(err)
	}
	check("delivered in part", 1, "anna@shop.test", "d2.test", 1)

	// Another file of the same size and time.
	next := filepath.Join(dir, "next")
	writeMode(t, next, postfixFile("bobby@shop.test", "x@d1.test", "x@d2.test"), 0o700)
	if err := errors.Join(os.Chtimes(next, time.Time{}, spoolTime.Add(time.Hour)), os.Remove(moved), os.Rename(next, path)); err != nil {
		t.Fatal(err)
	}
	check("the id is another message's", 1, "bobby@shop.test", "d1.test", 1, "d2.test", 1)
}

func TestEximFrozenLater(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "input", "1xV3Ei-0004Nn-1c-H")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	text := readFile(t, "testdata/spool/exim/login-and-acl-variables")
	write(t, path, text)
	s := &EximSpool{Dir: dir, Now: spoolNow}
	if q := take(t, s); q.Held != 0 || q.Deferred != 1 {
		t.Errorf("got %+v, want nothing held", q)
	}
	write(t, path+".new", bytes.Replace(text, []byte("-deliver_firsttime"), []byte("-frozen 1795337300\n-deliver_firsttime"), 1))
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if q := take(t, s); q.Held != 1 || q.Deferred != 0 || q.Opened != 1 {
		t.Errorf("got %+v, want it held", q)
	}
}

// The login of an -H file comes after the variables of access lists, which may
// be long.
func TestEximLongHead(t *testing.T) {
	for size, known := range map[int]bool{100: true, headBytes: true, 20_000: true, longHeadBytes - 2000: true, longHeadBytes + 1: false} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "input"), 0o700); err != nil {
			t.Fatal(err)
		}
		value := strings.Repeat("-auth_id v@x.test\n", size/18+1)[:size]
		text := bytes.Replace(readFile(t, "testdata/spool/exim/login-and-acl-variables"), []byte("-aclc _x 37\nsome\n"), fmt.Appendf(nil, "-aclm report %d\n%s\n-aclc _x 37\nsome\n", size, value), 1)
		write(t, filepath.Join(dir, "input", "1xV3Ei-0004Nn-1c-H"), text)
		s := &EximSpool{Dir: dir, Now: spoolNow}
		q, err := s.Sample(t.Context())
		if err != nil || q.Total != 1 || q.Exact != known || known && !cmp.Equal(q.ByAccount, exactly("alice@shop.test", 1)) {
			t.Errorf("with a variable of %d bytes: got %+v, %v", size, q, err)
		}
	}
}

// Times that no calendar has are not told: a sample is always valid JSON.
func TestFarFuture(t *testing.T) {
	for text, want := range map[string]time.Time{
		"1795340000 5":                          time.Unix(1795340000, 5000),
		"1795340000":                            time.Unix(1795340000, 0),
		"999999999999 0":                        {},
		"253402300800":                          {},
		"-1 0":                                  {},
		"0":                                     {},
		"":                                      {},
		"1795340000 -5":                         time.Unix(1795340000, 0),
		"17953400000000000000000000000 0":       {},
		"1795340000 " + strings.Repeat("9", 99): time.Unix(1795340000, 0),
	} {
		got := postfixTime([]byte(text))
		if !got.Equal(want) {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A context that ends after it was asked a number of times.
type patience struct {
	context.Context
	left int
}

func (p *patience) Err() error {
	if p.left--; p.left < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// A look ends with its context wherever it is, and the next one starts anew.
func TestSampleDeadline(t *testing.T) {
	dir := postfixDirs(t)
	for i := range 20 {
		writeMode(t, filepath.Join(dir, "hold", fmt.Sprintf("4ABC%03X", i)), postfixFile("alice@shop.test", "x@d.test"), 0o700)
	}
	s := &PostfixSpool{Dir: dir, Now: spoolNow}
	n := 0
	for ; ; n++ {
		q, err := s.Sample(&patience{t.Context(), n})
		if err == nil {
			if q.Total != 20 || q.Opened != 20 {
				t.Errorf("got %+v", q)
			}
			break
		}
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), dir) || q.Total != 0 {
			t.Fatalf("asked %d times: got %+v, %v", n, q, err)
		}
	}
	if n < 25 {
		t.Errorf("the context was asked %d times, want once a directory and once a file", n)
	}
}

// Every message has the same chance to be in the sample, whatever its name,
// its directory and its age.
func TestSampleIsFair(t *testing.T) {
	const queued, size, rounds = 2000, 100, 400
	in := make([]int, queued)
	for range rounds {
		d := &draw{now: spoolTime, size: size, seed: maphash.MakeSeed()}
		var active, deferred int
		for i := range queued {
			queue, dir := &deferred, "deferred"
			if i < queued/10 {
				queue, dir = &active, "active"
			}
			name := longID(spoolTime.Add(-time.Duration(i)*time.Minute), i)
			d.offer(name, name, dir, queue)
		}
		if d.total != queued || active != queued/10 || deferred != queued-queued/10 || len(d.picks) != size {
			t.Fatalf("counted %d (%d, %d), picked %d", d.total, active, deferred, len(d.picks))
		}
		for _, p := range d.picks {
			at, _ := QueueIDTime(p.name)
			in[int(spoolTime.Sub(at)/time.Minute)]++
		}
	}
	// Each is in a twentieth of the samples, so a group of g messages is there
	// rounds*g/20 times, with a deviation of less than the root of that. Six of
	// them happen once in a thousand million runs.
	for _, group := range []struct{ from, to int }{{0, queued / 10}, {queued / 10, queued}, {0, queued / 2}, {queued / 2, queued}, {queued - 20, queued}, {0, 20}} {
		n := 0
		for _, times := range in[group.from:group.to] {
			n += times
		}
		want := float64(rounds*size*(group.to-group.from)) / queued
		if math.Abs(float64(n)-want) > 6*math.Sqrt(want) {
			t.Errorf("messages %d to %d were picked %d times, want about %.0f", group.from, group.to, n, want)
		}
	}
}

// The interval covers the truth in about 19 of 20 samples, of rare names too
// and where much of the queue is read.
func TestShareCovers(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, tt := range []struct{ mine, total, read int }{
		{300, 1000, 100}, {30, 1000, 100}, {5, 1000, 100}, {995, 1000, 100}, {500, 1000, 900}, {1, 1000, 500}, {3, 50_000, 500},
	} {
		const rounds = 2000
		covered, sum := 0, 0
		for range rounds {
			n, mine := 0, tt.mine
			for left := tt.total; left > tt.total-tt.read; left-- { // drawn without putting back
				if random.IntN(left) < mine {
					n, mine = n+1, mine-1
				}
			}
			s := share("", n, tt.read, tt.total)
			if s.Low > s.Count || s.Count > s.High || s.Low < 0 || s.High > tt.total {
				t.Fatalf("%+v is no interval", s)
			}
			if s.Low <= tt.mine && tt.mine <= s.High {
				covered++
			}
			sum += s.Count
		}
		if covered < rounds*93/100 {
			t.Errorf("%+v: %d of %d intervals hold the truth", tt, covered, rounds)
		}
		mean, deviation := float64(sum)/rounds, float64(tt.total)*math.Sqrt(float64(tt.mine)/float64(tt.total)/float64(tt.read)/rounds)
		if math.Abs(mean-float64(tt.mine)) > 5*deviation+0.5 {
			t.Errorf("%+v: the estimates are %.1f on average", tt, mean)
		}
	}
}

// Messages that go or move while the queue is read are no error. Where all are
// looked into they are counted as they were found, else as they were listed.
func TestVanishingFiles(t *testing.T) {
	for _, size := range []int{10, 4} {
		dir := postfixDirs(t)
		path := func(queue, id string) string { return filepath.Join(dir, queue, id) }
		put := func(queue, id string) {
			writeMode(t, path(queue, id), postfixFile("alice@shop.test", "x@d.test"), 0o700)
		}
		for i := range 6 {
			put("hold", fmt.Sprintf("4ABCDE%d", i))
		}
		put("active", "4BBCDE0")
		put("active", "4BBCDE1")
		s := &PostfixSpool{Dir: dir}
		var q QueueSample
		d := &draw{now: spoolTime, size: size, seed: maphash.MakeSeed()}
		if err := s.walk(t.Context(), d, &q); err != nil {
			t.Fatal(err)
		}
		// It was deferred before that directory was listed; and one more.
		d.offer("4BBCDE0", "4BBCDE0", filepath.Join(dir, "deferred"), &q.Deferred)
		put("deferred", "4CBCDE0")
		d.offer("4CBCDE0", "4CBCDE0", filepath.Join(dir, "deferred"), &q.Deferred)
		for _, err := range []error{
			os.Rename(path("active", "4BBCDE0"), path("deferred", "4BBCDE0")),
			os.Remove(path("deferred", "4CBCDE0")), os.Remove(path("hold", "4ABCDE0")), os.Remove(path("hold", "4ABCDE1")),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		heads, err := s.sampler.heads(t.Context(), d, spool{whole: isWhole, parse: parsePostfixFile}, &q)
		if err != nil {
			t.Fatal(err)
		}
		want := QueueSample{Active: 1, Deferred: 1, Held: 4, Opened: 6}
		if size == 4 { // one that is seen twice is counted once if both are picked
			want = QueueSample{Active: q.Active, Deferred: 2, Held: 6, Opened: len(heads)}
		}
		if diff := cmp.Diff(q, want); diff != "" || len(heads) != q.Opened || d.total != q.Active+q.Deferred+q.Held || q.Active < 1 {
			t.Errorf("sample of %d: %d heads of %d (-got +want):\n%s", size, len(heads), d.total, diff)
		}
	}
}

// Recipients may begin late in a file; what is cut before them is not taken
// for a message that has none.
func TestPostfixLongHead(t *testing.T) {
	for size, known := range map[int]bool{headBytes: true, longHeadBytes: false} {
		dir := postfixDirs(t)
		text := strings.Replace(postfixFile("alice@shop.test", "x@d.test"), "S\x0f", record('A', "log_helo_name="+strings.Repeat("x", size))+"S\x0f", 1)
		writeMode(t, filepath.Join(dir, "hold", "4ABCDE1"), text, 0o700)
		q := take(t, &PostfixSpool{Dir: dir, Now: spoolNow})
		if q.Total != 1 || q.Exact != known || known && !cmp.Equal(q.ByDestination, exactly("d.test", 1)) {
			t.Errorf("behind %d bytes: got %+v", size, q)
		}
	}
}
