package mailq

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDovecot(t *testing.T) {
	tests := []struct {
		name string
		log  string
		want string // kind, account, address, method, service
	}{
		{name: "dovecot-23-24: logins", log: `
2026-11-22 05:26:42 imap-login: Info: Login: user=<Alice@shop.test>, method=PLAIN, rip=192.0.2.1, lip=127.0.0.1, mpid=2068, TLS, session=<DTrtuNZgYs1/AAAB>
2026-11-22 05:26:43 pop3-login: Info: Login: user=<bob>, method=LOGIN, rip=2001:db8::1, lip=::1, mpid=2069, secured, session=<x>
2026-11-22 05:26:44 imap-login: Logged in: user=<carol@shop.test>, method=PLAIN, rip=192.0.2.1, lip=127.0.0.1
Nov 22 05:26:45 imap-login: Info: Login: user=<dave@shop.test>, method=PLAIN, rip=192.0.2.1, lip=127.0.0.1
Nov 22 05:26:46 mx1 dovecot: imap-login: Login: user=<eve@shop.test>, method=PLAIN, rip=192.0.2.1, lip=127.0.0.1
Nov 22 05:26:47 mx1 dovecot[99]: managesieve-login: Login: user=<fay@shop.test>, method=PLAIN, rip=192.0.2.1, lip=127.0.0.1`,
			want: `
login alice@shop.test 192.0.2.1 PLAIN imap
login bob@shop.test 2001:db8::1 LOGIN pop3
login carol@shop.test 192.0.2.1 PLAIN imap
login dave@shop.test 192.0.2.1 PLAIN imap
login eve@shop.test 192.0.2.1 PLAIN imap
login fay@shop.test 192.0.2.1 PLAIN managesieve`},
		{name: "dovecot-23-24: failures", log: `
2026-11-22 05:26:42 imap-login: Info: Disconnected: Aborted login by logging out (auth failed, 1 attempts in 2 secs): user=<alice@shop.test>, method=PLAIN, rip=192.0.2.1, lip=127.0.0.1, session=<x>
2026-11-22 05:27:42 imap-login: Disconnected (auth failed, 3 attempts in 6 secs): user=<bob@shop.test>, method=PLAIN, rip=192.0.2.2, lip=127.0.0.1
2026-11-22 05:28:42 imap-login: Login aborted: Logged out (auth failed, 1 attempts in 2 secs) (auth_failed): user=<carol@shop.test>, method=PLAIN, rip=192.0.2.3, lip=127.0.0.1
2026-11-22 05:29:42 imap-login: Info: Disconnected: Inactivity (no auth attempts in 3 secs): user=<>, rip=192.0.2.4, lip=127.0.0.1
2026-11-22 05:30:42 imap-login: Info: Disconnected (auth failed, 1 attempts in 2 secs): user=<x>, method=PLAIN, rip=10.0.0.1, user=<y>, method=PLAIN, rip=192.0.2.5, lip=127.0.0.1`,
			want: `
login-failed alice@shop.test 192.0.2.1 PLAIN imap
login-failed bob@shop.test 192.0.2.2 PLAIN imap
login-failed carol@shop.test 192.0.2.3 PLAIN imap
login-failed x>, method=plain, rip=10.0.0.1, user=<y@shop.test 192.0.2.5 PLAIN imap`},
		{name: "dovecot-next-passdb", log: `
2026-11-22 05:26:42 auth: Info: passwd-file(alice@shop.test,192.0.2.1,<s>): unknown user (SHA1 of given password: 36efeb) - trying the next passdb
2026-11-22 05:26:42 auth: Info: User found from deny passdb
2026-11-22 05:26:42 imap(alice@shop.test)<2068><s>: Info: Disconnected: Logged out in=24 out=775 deleted=0
2026-11-22 05:26:42 lmtp(alice@shop.test)<8432><s>: Info: msgid=<x>: saved mail to INBOX`},
		{name: "what auth_verbose adds", log: `
2026-11-22 05:26:42 auth: Info: passwd-file(alice@shop.test,192.0.2.1): Password mismatch (SHA1 of given password: a4b48a)
2026-11-22 05:27:42 auth: Info: passwd-file(mallory@shop.test,192.0.2.2,<s>): unknown user (given password: Password123$)
2026-11-22 05:28:42 auth-worker(14864): Info: conn unix:auth-worker (pid=1,uid=97): auth-worker<6>: sql(bob@shop.test,192.0.2.3): unknown user`,
			want: `
login-failed alice@shop.test 192.0.2.1
login-failed mallory@shop.test 192.0.2.2
login-failed bob@shop.test 192.0.2.3`},
		{name: "told by auth and by the server that asked it: one failure", log: `
Nov 22 05:26:42 mx1 dovecot: auth: passwd-file(alice@shop.test,192.0.2.1): Password mismatch
Nov 22 05:26:44 mx1 postfix/submission/smtpd[1]: warning: x.test[192.0.2.1]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=alice@shop.test
Nov 22 05:26:45 mx1 postfix/submission/smtpd[1]: warning: x.test[192.0.2.1]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=alice@shop.test
Nov 22 05:26:46 mx1 dovecot: auth: passwd-file(alice@shop.test,192.0.2.1): Password mismatch
Nov 22 05:36:46 mx1 postfix/submission/smtpd[1]: warning: x.test[192.0.2.1]: SASL PLAIN authentication failed: (reason unavailable), sasl_username=alice@shop.test`,
			want: `
login-failed alice@shop.test 192.0.2.1
login-failed alice@shop.test 192.0.2.1 PLAIN smtp
login-failed alice@shop.test 192.0.2.1 PLAIN smtp`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, ev := range events(newParser(), tt.log[min(1, len(tt.log)):]) {
				got = append(got, strings.TrimSpace(fmt.Sprint(kindNames[ev.Kind], " ", ev.Account, " ", ev.Client, " ", ev.Method, " ", ev.Service)))
			}
			if diff := cmp.Diff(strings.Join(got, "\n"), strings.TrimSpace(tt.want)); diff != "" {
				t.Errorf("-got +want\n%s", diff)
			}
		})
	}
}

// No password that a client gave, nor its fingerprint, is in an event.
func TestDovecotPlainPassword(t *testing.T) {
	t.Run("dovecot-plain-password", func(t *testing.T) {
		evs := events(newParser(), `2026-11-22 05:26:42 auth: Info: passwd-file(alice@shop.test,192.0.2.1): Password mismatch (given password: Secret-77)
2026-11-22 05:26:52 auth: Info: passwd-file(alice@shop.test,192.0.2.1): unknown user (SHA1 of given password: a4b48a)
`)
		if len(evs) != 2 {
			t.Fatalf("%d events, want 2", len(evs))
		}
		if all := fmt.Sprintf("%+v", evs); strings.Contains(all, "Secret-77") || strings.Contains(all, "a4b48a") {
			t.Errorf("an event holds the password: %s", all)
		}
	})
}
