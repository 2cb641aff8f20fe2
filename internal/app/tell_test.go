package app

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/notify"
)

// A channelOf takes messages unless err is set.
type channelOf struct {
	err  error
	took []string
	asks int
}

func (c *channelOf) Send(_ context.Context, m notify.Message) error {
	c.asks++
	if c.err == nil {
		c.took = append(c.took, m.ID)
	}
	return c.err
}

// telling is a teller with two channels and the outbox of dir.
func telling(t *testing.T, dir string) (tell *teller, mail, hook *channelOf) {
	t.Helper()
	p, _, _ := answeringIn(t, dir)
	mail, hook = &channelOf{}, &channelOf{}
	p.teller.sender.Channels = map[string]notify.Channel{"mail": mail, "hook": hook}
	return p.teller, mail, hook
}

func post(t *testing.T, tell *teller, rows ...store.OutboxRow) {
	t.Helper()
	if _, err := tell.store.Commit(t.Context(), store.Batch{Outbox: rows}); err != nil {
		t.Fatal(err)
	}
}

func letterTo(t *testing.T, channel, id string) store.OutboxRow {
	t.Helper()
	body, err := json.Marshal(notify.Message{ID: id, Title: "t"})
	if err != nil {
		t.Fatal(err)
	}
	return store.OutboxRow{ID: id + "/" + channel, Channel: channel, Body: body}
}

// A letter that cannot be read is given up and holds up no other.
func TestDamagedLetter(t *testing.T) {
	tell, mail, _ := telling(t, t.TempDir())
	post(t, tell, store.OutboxRow{ID: "a/mail", Channel: "mail", Body: []byte(`{"id":`)}, letterTo(t, "mail", "b"))
	if _, err := tell.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(mail.took, []string{"b"}); diff != "" {
		t.Errorf("sent (-got +want):\n%s", diff)
	}
	dead, err := tell.store.Dead(t.Context(), 10)
	if err != nil || len(dead) != 1 || dead[0].ID != "a/mail" {
		t.Errorf("given up: %+v, %v; want the damaged one", dead, err)
	}
}

// A channel that is left alone after a failure is not tried, and that is no
// attempt: its letters are not put off for longer and longer.
func TestLeftAloneIsNoAttempt(t *testing.T) {
	tell, mail, hook := telling(t, t.TempDir())
	mail.err = errors.New("connection refused")
	post(t, tell, letterTo(t, "mail", "a"))
	for _, id := range []string{"b", "c", "d"} {
		if _, err := tell.round(t.Context()); err != nil {
			t.Fatal(err)
		}
		post(t, tell, letterTo(t, "mail", id), letterTo(t, "hook", id))
	}
	if _, err := tell.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if mail.asks != 1 || len(hook.took) != 3 {
		t.Errorf("mail asked %d times, hook took %q; want 1 and all three", mail.asks, hook.took)
	}
	rows, err := tell.store.Due(t.Context(), time.Now().Add(24*time.Hour), 10)
	if err != nil || len(rows) != 4 {
		t.Fatalf("%d letters wait, %v; want 4", len(rows), err)
	}
	for _, row := range rows {
		if want := map[bool]int{true: 1}[row.ID == "a/mail"]; row.Attempts != want {
			t.Errorf("%s: %d attempts, want %d", row.ID, row.Attempts, want)
		}
	}
}

// A letter that was taken is not sent again because that cannot be written down.
func TestSentOnceOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	tell, mail, _ := telling(t, dir)
	post(t, tell, letterTo(t, "mail", "a"), letterTo(t, "mail", "b"))
	allow := forbid(t, dir, "UPDATE ON outbox")
	for range 3 {
		if _, err := tell.round(t.Context()); err == nil {
			t.Error("that nothing can be written is not told")
		}
	}
	allow()
	for range 2 {
		if _, err := tell.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(mail.took, []string{"a", "b"}); diff != "" {
		t.Errorf("sent (-got +want):\n%s", diff)
	}
}
