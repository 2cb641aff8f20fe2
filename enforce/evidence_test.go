package enforce

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vedetta-watch/vedetta/mailq"
)

func TestEvidence(t *testing.T) {
	header := strings.Join([]string{
		"Received: from x ([192.0.2.1])", "\t(Authenticated sender: alice@shop.test)", "\tby mx1.hosting.test (Postfix) with ESMTPSA id 4jX", "\tfor <victim@ok.test>; Sun, 22 Nov 2026 10:00:00 +0000",
		"Received: from far by away for <other@ok.test>",
		"X-PHP-Originating-Script: 1001:mailer.php", "X-PHP-Script: shop.test/x.php for 198.51.100.7",
		`From: "The Bank" <ceo@bank.test>`, "From: second@bank.test", "Subject: =?utf-8?q?your_account?=", " \x1b[31mis\x00 \u202eclosed \xff",
		"Date: now", "Message-ID: <1@bank.test>", "User-Agent: Mailer 1",
		`To: Victim <victim@OK.test>, "a@b.test, (x" <v2@ok.test>, "a b"@far.test (c@d.test)`, "Cc: undisclosed-recipients:;", "Bcc: a@x.test,", "\tb@x.test",
		"no field", ": nameless", "",
	}, "\n")
	m := Queued{ID: shortID, Arrival: queuedAt, Sender: "ceo@bank.test", Size: 7, Rcpts: 3, Client: netip.MustParseAddr("192.0.2.1"), Login: "alice@shop.test"}
	want := Evidence{
		ID: shortID, Arrival: queuedAt, Client: m.Client, Sender: "ceo@bank.test", Size: 7, Rcpts: 3,
		From: `"The Bank" <ceo@bank.test>`, Subject: "=?utf-8?q?your_account?= [31mis closed ?", Date: "now", MessageID: "<1@bank.test>", Mailer: "Mailer 1",
		PHP:      []string{"x-php-originating-script: 1001:mailer.php", "x-php-script: shop.test/x.php for 198.51.100.7"},
		Received: "from x ([192.0.2.1]) (Authenticated sender: alice@shop.test) by mx1.hosting.test (Postfix) with ESMTPSA id 4jX for <…@ok.test>; Sun, 22 Nov 2026 10:00:00 +0000",
		To:       map[string]int{"ok.test": 2, "far.test": 1}, Cc: map[string]int{}, Bcc: map[string]int{"x.test": 2},
	}
	if diff := cmp.Diff(evidence(m, []byte(header)), want, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("evidence (-got +want):\n%s", diff)
	}
	exim := evidence(m, []byte("Received: from alice by mx2 with esmtpa (Exim 4.96)\n\t(envelope-from <a@b.test>) id 1xV5h8-0005qv-12 for victim@ok.test; Sun\n"))
	if strings.Contains(exim.Received, "victim") || !strings.HasSuffix(exim.Received, "for <…@ok.test>; Sun") {
		t.Errorf("got %q", exim.Received)
	}
}

// headers is a queue that has nothing but headers.
type headers struct {
	Queue
	of map[string]string
}

func (h headers) Headers(_ context.Context, m Queued) ([]byte, error) {
	text, ok := h.of[m.ID]
	if !ok {
		return nil, fmt.Errorf("%s: %w", m.ID, mailq.ErrGone)
	}
	if text == "" {
		return nil, errors.New("cannot\nread")
	}
	return []byte(text), nil
}

func TestSample(t *testing.T) {
	q := headers{of: map[string]string{}}
	var ms []Queued
	for i := range 100 {
		id := fmt.Sprint(i)
		ms = append(ms, Queued{ID: id})
		q.of[id] = "Subject: " + id
	}
	q.of["99"] = ""
	delete(q.of, "49")
	subjects := func(ms []Queued, n int) (all []string) {
		for _, e := range Sample(t.Context(), q, ms, n) {
			all = append(all, e.Subject+e.Error)
		}
		return all
	}
	for _, test := range []struct {
		ms   []Queued
		n    int
		want []string
	}{
		{nil, 5, nil}, {ms, 0, nil}, {ms, 1, []string{"0"}}, {ms, 5, []string{"0", "24", "74", "cannot read"}}, {ms[:3], 5, []string{"0", "1", "2"}},
	} {
		if diff := cmp.Diff(subjects(test.ms, test.n), test.want); diff != "" {
			t.Errorf("%d of %d (-got +want):\n%s", test.n, len(test.ms), diff)
		}
	}
}

func FuzzEvidence(f *testing.F) {
	f.Add("Received: by x\n\tfor <a@b.test>\nSubject: x\nTo: \"a\" <a@b.test>, (c@d) e@f\n\nbody")
	f.Add("To: \\\nX-PHP-\xff: \u202e\x00\nFrom:" + strings.Repeat("ü", 1000))
	f.Fuzz(func(t *testing.T, header string) {
		e := evidence(Queued{}, []byte(header))
		hosts := 0
		check := func(text string) {
			if len(text) > maxField || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q from %q", text, header)
			}
		}
		for _, text := range append(e.PHP, e.From, e.Subject, e.Date, e.MessageID, e.Mailer, e.Received) {
			check(text)
		}
		for _, counts := range []map[string]int{e.To, e.Cc, e.Bcc} {
			for domain := range counts {
				check(domain)
				hosts++
			}
		}
		if hosts > 3*(maxEvidenceHosts+1) || len(e.PHP) > maxPHP {
			t.Errorf("%d domains, %d scripts", hosts, len(e.PHP))
		}
	})
}
