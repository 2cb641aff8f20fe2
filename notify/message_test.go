package notify

import (
	"bytes"
	"flag"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var t0 = time.Date(2026, 3, 20, 10, 0, 8, 0, time.UTC)

// blocked is a message as the app makes them.
func blocked() Message {
	return Message{
		ID: "i-ab4a31ce90f0479f/block", Thread: "i-ab4a31ce90f0479f/observe", Type: "incident.escalated", Time: t0, Severity: Critical,
		Title: "alice@shop.test looks hijacked: blocked", Subject: "alice@shop.test",
		What: "alice@shop.test looks hijacked: since 2026-03-20 09:59:41 UTC it has sent 9 messages to 9 recipients.",
		Done: "Its mail is refused, until 2026-03-21 10:00:07 UTC.",
		Evidence: []Evidence{
			{"novelty", "9 of 9 recipients never written to before", 9.1},
			{"rate", "9 messages in 26 seconds; this account's usual busiest minute is 1", 5.2},
			{"logins", "used from a network that it was never used from before", 2.9},
		},
		Facts: []Fact{
			{"account", "alice@shop.test"},
			{"since", "2026-03-20 09:59:41 UTC"},
			{"noticed", "2026-03-20 10:00:07 UTC"},
			{"messages", "9"},
			{"recipients", "9"},
			{"score", "17.2"},
			{"rule", "hijacked-mailbox"},
			{"action", "block"},
			{"ends", "2026-03-21 10:00:07 UTC"},
			{"why", `score 17.2, families 3, recipients 9: block when (score >= 16 && families >= 2 && foreign >= 2 && class != "forward") || hard != ""`},
			{"finding", "f-ab4a31ce90f0479f"},
			{"incident", "i-ab4a31ce90f0479f"},
			{"server", "mx1.hosting.test"},
		},
		Undo: []string{
			"vedetta release alice@shop.test  # it was no hijack: let it send, and learn from it",
			"vedetta unblock alice@shop.test  # its password is changed: let it send again",
			"vedetta why alice@shop.test  # all the evidence",
		},
	}
}

func hostile() Message {
	m := blocked()
	m.ID, m.Thread = "i-1/block\r\nX: y", ""
	m.Title = "a\r\nBcc: b@shop.test looks hijacked \x1b[31m =?utf-8?q?=07?="
	m.Subject = "a\r\nBcc: b@shop.test"
	m.What = "jösé\x9b2J \u202egro.elpmaxe@\xff looks hijacked."
	m.Evidence = append(m.Evidence, Evidence{"size", strings.Repeat("A", 1<<20), 1e308})
	m.Undo = []string{"vedetta release 'a\r\nBcc: b@shop.test'"}
	return m
}

func storm(n int) []Row {
	var rows []Row
	for i := range n {
		m := blocked()
		who := fmt.Sprintf("user%02d@shop.test", i)
		m.ID = fmt.Sprintf("i-%016x/block", i)
		m.Time = t0.Add(time.Duration(i) * time.Second)
		m.Title, m.Subject = who+" looks hijacked: blocked", who
		m.What = strings.ReplaceAll(m.What, "alice@shop.test", who)
		m.Facts = []Fact{{"host", "mx3.shop.test"}, {"account", who}, {"finding", fmt.Sprintf("f-%016x", i)}}
		m.Undo = []string{"vedetta release " + who}
		rows = append(rows, Row{ID: m.ID + "@mail", Channel: "mail", Message: m, Created: m.Time})
	}
	return rows
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("-got +want:\n%s", diff)
	}
}

func TestLooks(t *testing.T) {
	channel := Mail{From: "Vedetta <vedetta@shop.test>", To: "duty@shop.test"}
	for name, m := range map[string]Message{
		"blocked": blocked(), "hostile": hostile(), "digest": Digest(storm(3)),
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := channel.Render(m)
			if err != nil {
				t.Fatal(err)
			}
			checkMail(t, raw, m)
			golden(t, name+".eml", strings.ReplaceAll(string(raw), "\r\n", "\n"))
			golden(t, name+".txt", m.Text())
		})
	}
}

// Only what follows answers the first message of an incident.
func TestThread(t *testing.T) {
	channel := Mail{From: "vedetta@shop.test", To: "duty@shop.test"}
	const first = "i-1/observe"
	for id, want := range map[string]string{first: "", "i-1/block": "<i-1/observe@shop.test>"} {
		raw, err := channel.Render(Message{ID: id, Thread: first, Time: t0})
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := mail.ReadMessage(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"In-Reply-To", "References"} {
			if got := parsed.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", id, name, got, want)
			}
		}
	}
}
