package loggen_test

import (
	"bytes"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

func write(t *testing.T, o loggen.Options) []string {
	t.Helper()
	var b bytes.Buffer
	if err := loggen.Write(&b, o); err != nil {
		t.Fatal(err)
	}
	if b.Len() == 0 || b.Bytes()[b.Len()-1] != '\n' {
		t.Fatal("the log does not end with a newline")
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

func TestLinesAreOrderedAndCounted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      loggen.Options
		layout string // of the stamps
	}{
		{"postfix", loggen.Options{Lines: 5000}, time.Stamp},
		{"postfix rfc3339", loggen.Options{Lines: 5000, RFC3339: true, Dovecot: true}, "2006-01-02T15:04:05.000000-07:00"},
		{"exim", loggen.Options{Lines: 5000, Format: loggen.Exim}, time.DateTime},
		{"one line", loggen.Options{Lines: 1}, time.Stamp},
		{"one account, busy", loggen.Options{Lines: 3000, Accounts: 1, Rate: 50, Shops: 1}, time.Stamp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines := write(t, tt.o)
			if got, want := len(lines), tt.o.Lines; got != want {
				t.Errorf("%d lines, want %d", got, want)
			}
			last := time.Time{}.AddDate(-1, 0, 0) // a stamp without a year is in year 0
			for _, line := range lines {
				width := len(tt.layout)
				if tt.o.RFC3339 {
					width = len("2006-01-02T15:04:05.000000+00:00")
				}
				at, err := time.Parse(tt.layout, line[:width])
				if err != nil {
					t.Fatal(err)
				}
				if at.Before(last) {
					t.Fatalf("%q is earlier than the line before it", line)
				}
				last = at
			}
		})
	}
}

func TestSameSeedSameLog(t *testing.T) {
	o := loggen.Options{Lines: 2000, Seed: 7, Hijacks: []loggen.Hijack{{Account: 3, After: time.Hour}}}
	first, second := write(t, o), write(t, o)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
	o.Seed = 8
	if other := write(t, o); cmp.Equal(other, first) {
		t.Error("another seed gave the same log")
	}
}

// A longer log begins with the shorter one, so that a test can continue a log.
func TestLongerLogContinues(t *testing.T) {
	o := loggen.Options{Lines: 1000, Format: loggen.Exim}
	short := write(t, o)
	o.Lines = 1500
	if diff := cmp.Diff(write(t, o)[:1000], short); diff != "" {
		t.Error(diff)
	}
}

func TestHijack(t *testing.T) {
	h := loggen.Hijack{Account: 5, After: 2 * time.Hour, Every: 3 * time.Second, Messages: 20, Rcpts: 4}
	for _, tt := range []struct {
		name    string
		o       loggen.Options
		script  bool
		arrival string // a line that only a hijacked message has
		rcpts   string
	}{
		{"postfix", loggen.Options{}, false, `client=unknown\[203\.0\.113\.\d+\], sasl_method=PLAIN, sasl_username=LOGIN$`, `nrcpt=4 `},
		{"exim", loggen.Options{Format: loggen.Exim}, false, `<= LOGIN H=\(vm\) \[203\.0\.113\..* A=dovecot_plain:LOGIN .* for \S+ \S+ \S+ \S+$`, `T="Your parcel is waiting"`},
		{"exim script", loggen.Options{Format: loggen.Exim}, true, `<= www@\S+ U=u\S+ P=local .*parcel.* for \S+ \S+ \S+ \S+$`, `parcel`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.o
			o.Lines, o.Hijacks = 12000, []loggen.Hijack{h}
			o.Hijacks[0].Script = tt.script
			re := regexp.MustCompile(strings.ReplaceAll(tt.arrival, "LOGIN", regexp.QuoteMeta(o.Login(h.Account))))
			rcpts := regexp.MustCompile(tt.rcpts)
			var arrivals, counted int
			for _, line := range write(t, o) {
				if re.MatchString(line) {
					arrivals++
				}
				if rcpts.MatchString(line) {
					counted++
				}
			}
			if arrivals != h.Messages {
				t.Errorf("%d messages of the hijack, want %d", arrivals, h.Messages)
			}
			if counted < h.Messages {
				t.Errorf("%d messages with %d recipients, want %d or more", counted, h.Rcpts, h.Messages)
			}
		})
	}
}

func TestTrafficIsMixed(t *testing.T) {
	postfix := strings.Join(write(t, loggen.Options{Lines: 60000, Dovecot: true}), "\n")
	exim := strings.Join(write(t, loggen.Options{Lines: 60000, Format: loggen.Exim}), "\n")
	for _, tt := range []struct {
		log, name, want string
		min             int
	}{
		{postfix, "sent", "status=sent", 5000},
		{postfix, "bounced", "status=bounced", 40},
		{postfix, "deferred", "status=deferred", 40},
		{postfix, "report of failure", "sender non-delivery notification", 40},
		{postfix, "script", "pickup[828]", 100},
		{postfix, "bad login", "SASL PLAIN authentication failed", 20},
		{postfix, "relay attempt", "Relay access denied", 50},
		{postfix, "dovecot", "imap-login: Login: user=<", 500},
		{postfix, "no connection", "Connection timed out", 5},
		{exim, "delivered", " => ", 5000},
		{exim, "bounced", " ** ", 40},
		{exim, "deferred", " == ", 40},
		{exim, "script", "public_html/wp 4 args: /usr/sbin/sendmail", 100},
		{exim, "bad login", "535 Incorrect authentication data", 20},
		{exim, "relay attempt", "relay not permitted", 50},
	} {
		if got := strings.Count(tt.log, tt.want); got < tt.min {
			t.Errorf("%s: %d lines with %q, want at least %d", tt.name, got, tt.want, tt.min)
		}
	}
}

func TestQueueIDTellsTheTime(t *testing.T) {
	lines := write(t, loggen.Options{Lines: 500})
	re := regexp.MustCompile(`: ([0-9A-Za-z]+)z[0-9A-Za-z]{4}: client=`)
	const digits = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
	checked := 0
	for _, line := range lines {
		m := re.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var seconds int64
		for _, c := range m[1][:len(m[1])-4] {
			seconds = seconds*52 + int64(strings.IndexRune(digits, c))
		}
		at, err := time.Parse(time.Stamp, line[:15])
		if err != nil {
			t.Fatal(err)
		}
		at = at.AddDate(2026, 0, 0)
		if late := at.Sub(time.Unix(seconds, 0)); late < 0 || late > 2*time.Second {
			t.Errorf("%s: id says %v", line, time.Unix(seconds, 0).UTC())
		}
		checked++
	}
	if checked < 40 {
		t.Errorf("only %d ids checked", checked)
	}
}

func TestNonsense(t *testing.T) {
	for name, o := range map[string]loggen.Options{
		"no lines":        {},
		"format":          {Lines: 1, Format: "qmail"},
		"accounts":        {Lines: 1, Accounts: -1},
		"shops":           {Lines: 1, Accounts: 2, Shops: 3},
		"rate":            {Lines: 1, Rate: -1},
		"dovecot in exim": {Lines: 1, Format: loggen.Exim, Dovecot: true},
		"hijack of none":  {Lines: 1, Accounts: 2, Hijacks: []loggen.Hijack{{Account: 2}}},
	} {
		if err := loggen.Write(&bytes.Buffer{}, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// pflogsumm must count every message, or comparing speeds would mean nothing.
func TestPflogsummUnderstands(t *testing.T) {
	program, err := exec.LookPath("pflogsumm")
	if err != nil {
		t.Skip("pflogsumm is not installed")
	}
	log := strings.Join(write(t, loggen.Options{Lines: 20000}), "\n") + "\n"
	cmd := exec.Command(program)
	cmd.Stdin = strings.NewReader(log)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	received := strings.Count(log, ": client=") + strings.Count(log, "pickup[")
	if m := regexp.MustCompile(`(\d+)\s+received`).FindSubmatch(out); m == nil || string(m[1]) != strconv.Itoa(received) {
		t.Errorf("pflogsumm counts %q received, want %d", m, received)
	}
	delivered := strings.Count(log, "status=sent")
	if m := regexp.MustCompile(`(\d+)\s+delivered`).FindSubmatch(out); m == nil || string(m[1]) != strconv.Itoa(delivered) {
		t.Errorf("pflogsumm counts %q delivered, want %d", m, delivered)
	}
}
