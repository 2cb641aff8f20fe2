package enforce

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// A login that Postfix takes from Dovecot: after the reset the old password
// sends nothing more, without a reload of either.
func TestResetEndsSending(t *testing.T) {
	b := bed.Start(t, bed.Options{})
	const alice = "alice@shop.test"
	send := func(password string) error { return b.Send(alice, password, alice, "r@ok.test") }
	if err := send("pw-alice"); err != nil {
		t.Fatal(err)
	}
	r := &Resetter{
		Passwords: []Passwords{PasswdFile{Path: filepath.Join(b.Dir, "users")}},
		Sessions:  []Sessions{DovecotSessions{ConfigFile: filepath.Join(b.Dir, "dovecot.conf")}},
	}
	out := r.Do(t.Context(), Reset{ID: "d-1", Account: alice, Logins: []string{alice}})
	if !out.OK {
		t.Fatalf("%+v", out)
	}
	b.Wait("the old password to be refused", func() bool {
		var reply *smtp.SMTPError
		return errors.As(send("pw-alice"), &reply) && reply.Code == 535
	})
	if err := send(out.Password.Reveal()); err != nil {
		t.Errorf("the new password: %v", err)
	}
	if err := b.Send("bob@shop.test", "pw-bob", "bob@shop.test", "r@ok.test"); err != nil {
		t.Errorf("another account: %v", err)
	}
}
