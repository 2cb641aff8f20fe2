package mailq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// spoolTime is when the looks of these tests happen.
var spoolTime = time.Unix(1795340000, 0).UTC()

func spoolNow() time.Time { return spoolTime }

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The files were written by Postfix 3.7 and Exim 4.96.
func TestQueueHeads(t *testing.T) {
	half := []string{"soft.test", "dead.test"}
	tests := []struct {
		file string
		want queueHead
	}{
		{"postfix/deferred-100-recipients", queueHead{size: 296, rcpts: 101, login: "bob@shop.test", uid: -1, client: netip.MustParseAddr("127.0.0.1"), sender: "bob@shop.test", domains: half, arrival: time.UnixMicro(1795336818_331146)}},
		{"postfix/held-login", queueHead{size: 298, rcpts: 2, login: "alice@shop.test", uid: -1, client: netip.MustParseAddr("127.0.0.1"), sender: "alice@shop.test", domains: []string{"soft.test", "ok.test"}, arrival: time.UnixMicro(1795336818_395548)}},
		{"postfix/deferred-local", queueHead{size: 267, rcpts: 1, uid: 65534, sender: "bob@shop.test", domains: []string{"far.test"}, arrival: time.UnixMicro(1795336037_037966)}},
		{"postfix/maildrop-local", queueHead{rcpts: 2, uid: -1, sender: "bob@shop.test", domains: []string{"far.test"}, arrival: time.UnixMicro(1795336835_995786)}},
		{"exim/login-and-acl-variables", queueHead{rcpts: 3, login: "alice@shop.test", uid: -1, client: netip.MustParseAddr("192.0.2.7"), sender: "alice@shop.test", domains: []string{"d1.test", "d2.test"}, arrival: time.Unix(1795337268, 0)}},
		{"exim/local", queueHead{rcpts: 1, user: "root", uid: -1, sender: "shop@shop.test", domains: []string{"d3.test"}, arrival: time.Unix(1795337268, 0)}},
		{"exim/frozen-bounce", queueHead{rcpts: 1, user: "root", uid: -1, domains: []string{"d3.test"}, arrival: time.Unix(1795337268, 0), held: true}},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			b := readFile(t, filepath.Join("testdata/spool", tt.file))
			parse := parseEximHead
			if strings.HasPrefix(tt.file, "postfix") {
				parse = parsePostfixHead
			}
			got := parse(b[:min(len(b), headBytes)])
			if diff := cmp.Diff(got, tt.want, cmp.AllowUnexported(queueHead{}), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("head (-got +want):\n%s", diff)
			}
			for n := range min(len(b), headBytes) { // cut anywhere: less, but nothing else
				if h := parse(b[:n]); h.login != "" && h.login != tt.want.login || h.sender != "" && h.sender != tt.want.sender || len(h.domains) > len(tt.want.domains) {
					t.Fatalf("cut at %d: got %+v", n, h)
				}
			}
		})
	}
}

// record writes one record of a Postfix queue file.
func record(kind byte, data string) string {
	n := len(data)
	out := []byte{kind}
	for ; n > 0x7f; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return string(append(out, byte(n))) + data
}

func TestPostfixHeadOddities(t *testing.T) {
	const first = "T\x0a1700000000"
	tests := []struct {
		name, file string
		want       queueHead
	}{
		{"empty", "", queueHead{}},
		{"text", "Received: from x by y", queueHead{}},
		{"done recipients are left out", first + record('S', "a@x.test") + record('D', "b@done.test") + record('R', "c@x.test"), queueHead{sender: "a@x.test", domains: []string{"x.test"}}},
		{"content is no envelope", first + record('M', "") + record('N', "sasl_username=v@x.test") + record('A', "sasl_username=v@x.test") + record('R', "a@x.test"), queueHead{}},
		{"a value that looks like more", first + record('A', "log_helo_name=x\nsasl_username=v@x.test"), queueHead{}},
		{"control characters", first + record('A', "sasl_username=v\x00\n@x.test"), queueHead{login: "v??@x.test"}},
		{"a length beyond the file", first + "A\xff\xff\xff\x7fsasl_username=v", queueHead{}},
		{"an endless length", first + "A\xff\xff\xff\xff\xff\xff\xff", queueHead{}},
		{"a uid told by a stranger's header", first + record('A', "log_client_name=unknown") + record('M', "") + record('N', "Received: by x (Postfix, from userid 1000)"), queueHead{}},
		{"a uid", first + record('M', "") + record('N', "Received: by x (Postfix, from userid 1000)"), queueHead{uid: 1000}},
		{"a uid that is none", first + record('M', "") + record('N', "Received: by x (Postfix, from userid -1)"), queueHead{}},
		{"many domains", first + manyRecipients(100), queueHead{domains: []string{"d0.test", "d1.test", "d2.test", "d3.test", "d4.test", "d5.test", "d6.test", "d7.test",
			"d8.test", "d9.test", "d10.test", "d11.test", "d12.test", "d13.test", "d14.test", "d15.test"}}},
		{"no domain", first + record('R', "root"), queueHead{}},
	}
	for _, tt := range tests {
		got := parsePostfixHead([]byte(tt.file))
		if tt.want.uid == 0 {
			tt.want.uid = -1
		}
		opts := []cmp.Option{cmp.AllowUnexported(queueHead{}), cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(queueHead{}, "arrival", "cut", "size", "rcpts", "odd")}
		if diff := cmp.Diff(got, tt.want, opts...); diff != "" {
			t.Errorf("%s: head (-got +want):\n%s", tt.name, diff)
		}
	}
}

func manyRecipients(n int) string {
	var s strings.Builder
	for i := range n {
		s.WriteString(record('R', fmt.Sprintf("r@d%d.test", i)) + record('R', fmt.Sprintf("R2@D%d.test", i)))
	}
	return s.String()
}

func TestEximHeadOddities(t *testing.T) {
	const top = "1xV3Ei-0004Nn-1c-H\nwww-data 33 33\n<a@x.test>\n1700000000 0\n"
	tests := []struct {
		name, file string
		want       queueHead
	}{
		{"empty", "", queueHead{}},
		{"no time", "a-H\nu 1 1\n<a@x.test>\nsoon 0\n-local\nXX\n0\n", queueHead{}},
		{"a script", top + "-local\nXX\n1\nb@y.test\n", queueHead{user: "www-data", sender: "a@x.test", domains: []string{"y.test"}}},
		{"a script's name as a login", top + "-ident shop\n-received_protocol local\n--auth_id shop\n-local\nXX\n1\nb@y.test\n", queueHead{user: "shop", sender: "a@x.test", domains: []string{"y.test"}}},
		{"a login on standard input", top + "-ident shop\n-received_protocol local-esmtpa\n-auth_id v@x.test\n-local\nXX\n1\nb@y.test\n", queueHead{user: "shop", login: "v@x.test", sender: "a@x.test", domains: []string{"y.test"}}},
		{"a stranger's ident", top + "--host_address [2001:db8::1]:25\n-ident root\n-received_protocol esmtp\nXX\n1\nb@y.test\n", queueHead{client: netip.MustParseAddr("2001:db8::1"), sender: "a@x.test", domains: []string{"y.test"}}},
		{"the older address form", top + "-host_address 192.0.2.1.25\nXX\n0\n", queueHead{client: netip.MustParseAddr("192.0.2.1"), sender: "a@x.test"}},
		{"how a value is quoted", top + "--(mysql)auth_id v@x.test\nXX\n0\n", queueHead{login: "v@x.test", sender: "a@x.test"}},
		{"variables hold anything", top + "-aclm _x 25\n\n-auth_id v@x.test\nXX\n1\nz\n-local\nXX\n1\nb@y.test\n", queueHead{user: "www-data", sender: "a@x.test", domains: []string{"y.test"}}},
		{"a variable longer than the head", top + "-aclm _x 9999\n-auth_id v@x.test\nXX\n0\n", queueHead{sender: "a@x.test"}},
		{"a variable of negative length", top + "-aclm _x -5\n-auth_id v@x.test\nXX\n0\n", queueHead{sender: "a@x.test"}},
		{"done recipients", top + "YY m@m.test\nYN c@c.test\nNN a@a.test\nNN z@z.test\n5\na@a.test\nb@b.test\nc@c.test\nm@m.test\nz@z.test\n", queueHead{sender: "a@x.test", domains: []string{"b.test"}}},
		{"an address with what belongs to it", top + "XX\n2\nb@b.test list@x.test 11,-1#3\n\"a b\"@c.test\n", queueHead{sender: "a@x.test", domains: []string{"b.test", "c.test"}}},
		{"fewer recipients than said", top + "XX\n9\nb@b.test\n\n", queueHead{sender: "a@x.test", domains: []string{"b.test"}}},
	}
	for _, tt := range tests {
		tt.want.uid = -1
		opts := []cmp.Option{cmp.AllowUnexported(queueHead{}), cmpopts.EquateComparable(netip.Addr{}), cmpopts.IgnoreFields(queueHead{}, "arrival", "cut", "size", "rcpts", "odd")}
		if diff := cmp.Diff(parseEximHead([]byte(tt.file)), tt.want, opts...); diff != "" {
			t.Errorf("%s: head (-got +want):\n%s", tt.name, diff)
		}
	}
}

// longID makes a long queue id of an arrival.
func longID(at time.Time, inode int) string {
	base := func(n int64, base int64, width int) string {
		var b []byte
		for ; n > 0 || len(b) < width; n /= base {
			b = append([]byte{longAlphabet[n%base]}, b...)
		}
		return string(b)
	}
	return base(at.Unix(), 52, 6) + base(int64(at.Nanosecond()/1000), 52, 4) + "z" + base(int64(inode), 51, 1)
}

// A message of a made-up Postfix queue.
type message struct {
	queue, id, login, to string
	at                   time.Time
}

func (m message) put(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, m.queue)
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	text := record('C', strings.Repeat(" ", 95)) + record('T', fmt.Sprintf("%d 0", m.at.Unix()))
	if m.login != "" {
		text += record('A', "sasl_username="+m.login)
	}
	text += record('S', cmp0(m.login, "list@far.test")) + record('R', m.to) + record('M', "")
	if err := os.WriteFile(filepath.Join(path, m.id), []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
}

func cmp0(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// postfixDirs makes an empty queue.
func postfixDirs(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"maildrop", "incoming", "active", "deferred", "hold", "defer"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var ignoreCost = cmpopts.IgnoreFields(QueueSample{}, "Duration", "Opened")

func exactly(counts ...any) (list []Share) {
	for i := 0; i < len(counts); i += 2 {
		n := counts[i+1].(int)
		list = append(list, Share{counts[i].(string), n, n, n})
	}
	return list
}

func TestPostfixSpool(t *testing.T) {
	dir := postfixDirs(t)
	ago := func(d time.Duration) time.Time { return spoolTime.Add(-d) }
	for i, m := range []message{
		{"active", "", "Alice@shop.test", "x@d1.test", ago(time.Minute)},
		{"deferred/4", "", "alice@shop.test", "x@d1.test", ago(2 * time.Hour)},
		{"deferred/4", "", "bob@shop.test", "x@D2.test", ago(2 * time.Hour)},
		{"deferred/A/B", "", "", "x@d3.test", ago(3 * 24 * time.Hour)},
		{"hold", "", "alice@shop.test", "x@d1.test", ago(9 * 24 * time.Hour)},
		{"incoming", "", "bob@shop.test", "x@d2.test", ago(time.Second)},
	} {
		m.id = longID(m.at, i)
		m.put(t, dir)
	}
	message{"defer/4", "4ABCDEF", "x@x.test", "x@x.test", spoolTime}.put(t, dir) // reasons, no messages
	write(t, filepath.Join(dir, "incoming", longID(spoolTime, 90)), []byte("half-written"))
	write(t, filepath.Join(dir, "active", "not a queue id"), nil)
	if err := os.Symlink("gone", filepath.Join(dir, "active", longID(spoolTime, 91))); err != nil { // vanishes before it is read
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "maildrop", longID(spoolTime, 92)), readFile(t, "testdata/spool/postfix/maildrop-local"), 0o744); err != nil {
		t.Fatal(err)
	}
	s := &PostfixSpool{Dir: dir, Host: "mx1", Now: spoolNow, Canonical: (&Directory{}).Canonical}
	got, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := QueueSample{
		Time: spoolTime, Host: "mx1", Total: 7, Active: 1, Incoming: 2, Deferred: 3, Held: 1,
		Oldest:        ago(9 * 24 * time.Hour),
		ByAccount:     exactly("alice@shop.test", 3, "bob@shop.test", 2, "uid:"+strconv.Itoa(os.Getuid()), 1),
		Unowned:       Share{"", 1, 1, 1},
		ByDestination: exactly("d1.test", 3, "d2.test", 2, "d3.test", 1, "far.test", 1),
		ByAge:         exactly("under 5m", 2, "5m-1h", 1, "1h-6h", 2, "6h-1d", 0, "1d-5d", 1, "over 5d", 1),
		Exact:         true, Read: 7,
	}
	if diff := cmp.Diff(got, want, ignoreCost, cmpopts.EquateApproxTime(time.Second)); diff != "" {
		t.Errorf("sample (-got +want):\n%s", diff)
	}
	if got.Opened != 7 || got.Duration <= 0 {
		t.Errorf("opened %d in %v, want 7", got.Opened, got.Duration)
	}
	again, err := s.Sample(t.Context())
	if diff := cmp.Diff(again, got, ignoreCost); diff != "" || err != nil || again.Opened != 0 {
		t.Errorf("opened %d again, %v, want none; (-got +want):\n%s", again.Opened, err, diff)
	}
	var back QueueSample
	text, err := json.Marshal(got)
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if diff := cmp.Diff(back, got); diff != "" || err != nil {
		t.Errorf("%v; by way of JSON (-got +want):\n%s", err, diff)
	}
}

func TestPostfixSpoolEstimates(t *testing.T) {
	dir := postfixDirs(t)
	put := func(i int, login string) {
		message{"deferred/" + string("0123456789ABCDEF"[i%16]), fmt.Sprintf("%05X%X", i, i+4096), login, "x@d.test", spoolTime.Add(-time.Hour)}.put(t, dir)
	}
	for i := range 2000 {
		login := fmt.Sprintf("user%d@shop.test", i)
		if i%10 < 3 {
			login = "alice@shop.test"
		}
		put(i, login)
	}
	s := &PostfixSpool{Dir: dir, Size: 400, Top: 5, Now: spoolNow}
	got, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Total != 2000 || got.Exact || got.Read != 400 || got.Opened != 400 || len(got.ByAccount) != 5 {
		t.Errorf("got %+v", got)
	}
	// With a half-width of 80, a sample that is 200 off is one of a million.
	if a := got.ByAccount[0]; a.Name != "alice@shop.test" || a.Count < 400 || a.Count > 800 || a.High-a.Low < 140 || a.High-a.Low > 180 {
		t.Errorf("got %+v, want about 600 ± 80", a)
	}
	if diff := cmp.Diff(got.ByDestination, []Share{{"d.test", 2000, 1984, 2000}}); diff != "" {
		t.Errorf("destinations (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(got.ByAge[2], Share{"1h-6h", 2000, 1984, 2000}); diff != "" {
		t.Errorf("short ids hold no time, the heads do (-got +want):\n%s", diff)
	}
	for i := range 400 { // a fifth more: about a fifth of the sample is new
		put(5000+i, "bob@shop.test")
	}
	got, err = s.Sample(t.Context())
	if err != nil || got.Total != 2400 || got.Opened < 20 || got.Opened > 120 || len(s.sampler.seen) != 400 {
		t.Errorf("got %v: %d in total, %d opened, %d remembered; want 2400, about 67, 400", err, got.Total, got.Opened, len(s.sampler.seen))
	}
}

// The interval of a share covers the truth in 19 of 20 samples.
func TestShare(t *testing.T) {
	tests := []struct {
		n, read, total int
		want           Share
	}{
		{0, 0, 0, Share{}},
		{3, 10, 10, Share{"", 3, 3, 3}},
		{1500, 5000, 1_000_000, Share{"", 300_000, 287_486, 312_820}},
		{5000, 5000, 1_000_000, Share{"", 1_000_000, 999_236, 1_000_000}},
		{0, 5000, 1_000_000, Share{"", 0, 0, 764}},
		{0, 0, 7, Share{"", 0, 0, 7}},
		{1, 5000, 6000, Share{"", 1, 1, 3}},
		{4999, 5000, 5001, Share{"", 5000, 4999, 5000}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(share("", tt.n, tt.read, tt.total), tt.want); diff != "" {
			t.Errorf("%d of %d read of %d (-got +want):\n%s", tt.n, tt.read, tt.total, diff)
		}
	}
}

func TestEximSpool(t *testing.T) {
	dir := t.TempDir()
	put := func(sub, id, sample string) {
		path := filepath.Join(dir, sub)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(path, id+"-H"), readFile(t, "testdata/spool/exim/"+sample))
		write(t, filepath.Join(path, id+"-D"), []byte(id+"-D\nbody\n"))
	}
	put("input", "1xV3Ei-0004Nn-1c", "login-and-acl-variables")
	put("input/i", "1xV3Ei-0004Nr-1h", "local")
	put("input/i", "1xV3Ei-000000004Nr-001h", "login-and-acl-variables")
	put("quarantine/input", "1xV3Ei-0004Nu-1t", "frozen-bounce")
	bounce := bytes.ReplaceAll(readFile(t, "testdata/spool/exim/frozen-bounce"), []byte("root"), []byte("Debian-exim"))
	write(t, filepath.Join(dir, "quarantine/input/1xV3Ei-0004Nu-1u-H"), bounce)
	write(t, filepath.Join(dir, "input", "hdr.12345"), nil) // a header file being written
	s := &EximSpool{Dir: dir, Host: "mx2", Now: spoolNow}
	got, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := QueueSample{
		Time: spoolTime, Host: "mx2", Total: 5, Deferred: 3, Held: 2,
		Oldest:        time.Unix(1795337268, 0),
		ByAccount:     exactly("alice@shop.test", 2, "user:root", 2), // an empty sender does not hide a script
		Unowned:       Share{"", 1, 1, 1},
		ByDestination: exactly("d3.test", 3, "d1.test", 2, "d2.test", 2),
		ByAge:         exactly("under 5m", 0, "5m-1h", 5, "1h-6h", 0, "6h-1d", 0, "1d-5d", 0, "over 5d", 0),
		Exact:         true, Read: 5,
	}
	if diff := cmp.Diff(got, want, ignoreCost, cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("sample (-got +want):\n%s", diff)
	}
}

func TestSpoolErrors(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "spool")
	_, err := (&PostfixSpool{Dir: missing}).Sample(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v, want that the directory does not exist", err)
	}
	_, err = (&EximSpool{Dir: missing}).Sample(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v, want that the directory does not exist", err)
	}
	err = spoolError("/var/spool/postfix/active", &fs.PathError{Op: "open", Path: "/var/spool/postfix/active", Err: fs.ErrPermission}, postfixRight)
	if want := "mailq: /var/spool/postfix/active: permission denied: reading the queue needs root"; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %q…", err, want)
	}
	dir := postfixDirs(t)
	message{"active", "4ABCDEF", "a@x.test", "b@x.test", spoolTime}.put(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&PostfixSpool{Dir: dir}).Sample(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want the context's error and the directory", err)
	}
	s := &PostfixSpool{Dir: dir}
	s.sampler.mu.Lock()
	if _, err := s.Sample(t.Context()); !errors.Is(err, errBusy) {
		t.Errorf("got %v while another look hangs, want that it says so", err)
	}
	s.sampler.mu.Unlock()
	if _, err := s.Sample(t.Context()); err != nil {
		t.Errorf("got %v after it ended", err)
	}
}

func FuzzPostfixHead(f *testing.F) {
	paths, _ := filepath.Glob("testdata/spool/postfix/*")
	for _, path := range paths {
		f.Add(readFile(f, path))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkHead(t, parsePostfixHead(b)) })
}

func FuzzEximHead(f *testing.F) {
	paths, _ := filepath.Glob("testdata/spool/exim/*")
	for _, path := range paths {
		f.Add(readFile(f, path))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkHead(t, parseEximHead(b)) })
}

// checkHead holds of every head, whoever wrote the file.
func checkHead(t *testing.T, h queueHead) {
	if len(h.login) > maxAddress || len(h.sender) > maxAddress || len(h.user) > 64 || len(h.domains) > maxHeadDomains || h.uid < -1 {
		t.Errorf("out of bounds: %+v", h)
	}
	for _, s := range append(h.domains, h.login, h.sender, h.user) {
		if len(s) > maxAddress || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q is not bounded text", s)
		}
	}
	if _, err := json.Marshal(h.arrival); !h.arrival.IsZero() && err != nil {
		t.Errorf("arrival: %v", err)
	}
}

// BenchmarkPostfixSpool looks at a queue of 100,000 messages, first with
// nothing known and then again. QUEUE_MESSAGES sets another number, such as
// 1000000, which needs as many inodes and 4 GB.
func BenchmarkPostfixSpool(b *testing.B) {
	n := 100_000
	if s := os.Getenv("QUEUE_MESSAGES"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	dir := postfixDirs(b)
	for i := range n {
		at := spoolTime.Add(-time.Duration(i) * 300 * time.Millisecond)
		message{fmt.Sprintf("deferred/%X", i%16), longID(at, i), fmt.Sprintf("user%d@shop.test", i*i%1000), "x@d.test", at}.put(b, dir)
	}
	look := func(b *testing.B, s *PostfixSpool) {
		q, err := s.Sample(b.Context())
		if err != nil || q.Total != n {
			b.Fatalf("%d of %d messages: %v", q.Total, n, err)
		}
		b.ReportMetric(float64(q.Opened), "opened")
		b.ReportMetric(q.Duration.Seconds()*1e6/float64(n), "s/million")
	}
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			look(b, &PostfixSpool{Dir: dir, Now: spoolNow})
		}
	})
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		s := &PostfixSpool{Dir: dir, Now: spoolNow}
		look(b, s)
		for b.Loop() {
			look(b, s)
		}
	})
}
