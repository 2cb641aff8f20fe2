package bed

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const dovecotConf = `base_dir = DIR/run
log_path = DIR/dovecot.log
log_timestamp = "%Y-%m-%d %H:%M:%S "
protocols = lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_verbose = yes
auth_failure_delay = 0
mail_location = maildir:DIR/mail/%u
first_valid_uid = 1
DENYpassdb {
  driver = passwd-file
  args = username_format=%u DIR/users
}
userdb {
  driver = static
  args = uid=mail gid=mail home=DIR/mail/%u
}
service lmtp {
  unix_listener DIR/lmtp {
    mode = 0666
  }
}
service auth {
  unix_listener DIR/auth {
    mode = 0666
  }
}
# Whoever was refused before is answered no later than others.
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
`

// The passdb that docs/tables.md has operators put before their own.
const dovecotDeny = `passdb {
  driver = passwd-file
  deny = yes
  args = username_format=%Lu FILE
}
`

func (b *Bed) writeDovecot() error {
	deny := ""
	if b.options.Deny != "" {
		deny = strings.ReplaceAll(dovecotDeny, "FILE", b.options.Deny)
	}
	var passwords strings.Builder
	for _, user := range users {
		for _, domain := range domains {
			fmt.Fprintf(&passwords, "%s@%s:{PLAIN}pw-%s\n", user, domain, user)
		}
	}
	conf := strings.NewReplacer("DIR", b.Dir, "DENY", deny).Replace(dovecotConf) + strings.Join(b.options.Dovecot, "\n") + "\n"
	mail := filepath.Join(b.Dir, "mail")
	owner, err := userID("mail")
	if err != nil {
		return err
	}
	return errors.Join(
		makeEmpty(b.options.Deny),
		os.WriteFile(filepath.Join(b.Dir, "users"), []byte(passwords.String()), 0o644),
		os.WriteFile(filepath.Join(b.Dir, "dovecot.conf"), []byte(conf), 0o644),
		os.MkdirAll(mail, 0o755),
		os.Chown(mail, owner, -1),
	)
}

// makeEmpty makes an empty file that everybody may read, if a path is given
// and there is none.
func makeEmpty(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// userID is the number of a system user.
func userID(name string) (int, error) {
	uid, _, err := userAndGroup(name)
	return uid, err
}

// userAndGroup is the number of a system user and that of its group.
func userAndGroup(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// groupID is the number of a group.
func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// Errors cost no time here: a test may be refused as often as it likes.
const mainCF = `compatibility_level = 3.6
queue_directory = DIR/spool
data_directory = DIR/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = DIR/maillog
maillog_file_prefixes = DIR
myhostname = mx1.hosting.test
mydestination = localhost
mynetworks = TRUSTED
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
biff = no
transport_maps = texthash:DIR/postfix/transport
default_transport = retry:4.4.0 no route in the test bed
relay_transport = retry:4.4.0 no route in the test bed
virtual_mailbox_domains = DOMAINS
virtual_transport = lmtp:unix:DIR/lmtp
smtp_host_lookup = native
smtp_tls_security_level = none
disable_dns_lookups = yes
smtpd_tls_security_level = none
smtpd_sasl_type = dovecot
smtpd_sasl_path = DIR/auth
smtpd_sasl_security_options = noanonymous
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 2000
smtpd_delay_reject = yes
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
`

const masterCF = `SMTP inet n - n - - smtpd
SUBMISSION inet n - n - - smtpd
  -o syslog_name=postfix/submission
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// The texts that docs/milter.md has operators put into two files and into
// main.cf, so that local mail is held by a table and its script logged, and what
// they change in master.cf.
const (
	localNames = `/^X-PHP-Originating-Script: ([0-9]+:[^ ]+)\([0-9]+\) : /  script:$1
/^X-PHP-Originating-Script: ([0-9]+:[^ ]+)/  script:$1
/^X-PHP-Script: ([^ ]+) for /  script:$1
/^Received: by HOST \(Postfix, from userid ([0-9]+)\)/  uid:$1
`
	localLogged = "/^X-PHP-(Originating-)?Script:/ INFO\n"
	localChecks = "vedetta_local = pipemap:{regexp:DIR/vedetta_names, hash:TABLE}, regexp:DIR/vedetta_header_checks"
	localPickup = `  -o cleanup_service_name=vedetta
vedetta unix n - n - 0 cleanup
  -o header_checks=$vedetta_local
  -o mime_header_checks=
  -o nested_header_checks=
`
)

func (b *Bed) writePostfix() error {
	if err := b.makeDirectories(); err != nil {
		return err
	}
	files := map[string]string{
		"main.cf":   b.mainCF(),
		"master.cf": strings.NewReplacer("SUBMISSION", b.Submission, "SMTP", b.SMTP).Replace(masterCF) + strings.Join(append(b.options.Master, ""), "\n"),
		"transport": b.routes("%s smtp:[127.0.0.1]:%d\n"),
	}
	if b.options.Local != "" {
		files["vedetta_header_checks"] = localLogged
		files["vedetta_names"] = strings.ReplaceAll(localNames, "HOST", "mx1.hosting.test")
		files["master.cf"] = strings.Replace(files["master.cf"], "pickup unix n - n 60 1 pickup\n", "pickup unix n - n 60 1 pickup\n"+localPickup, 1)
	}
	// Postfix waits with a file that may still be being written, until it is
	// two seconds old.
	written := time.Now().Add(-time.Minute)
	for name, text := range files {
		path := filepath.Join(b.Config, name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o644), os.Chtimes(path, written, written)); err != nil {
			return err
		}
	}
	return b.makeTables()
}

// makeDirectories makes what "postfix check" would, in a tenth of the time.
func (b *Bed) makeDirectories() error {
	postfix, err := userID("postfix")
	if err != nil {
		return err
	}
	postdrop, err := groupID("postdrop")
	if err != nil {
		return err
	}
	for _, d := range []struct {
		names string
		owner int
		group int
		mode  os.FileMode
	}{
		{"postfix spool spool/pid", 0, 0, 0o755},
		{"data spool/active spool/bounce spool/corrupt spool/defer spool/deferred spool/flush spool/hold spool/incoming spool/private spool/saved spool/trace", postfix, 0, 0o700},
		{"spool/maildrop", postfix, postdrop, 0o730},
		{"spool/public", postfix, postdrop, 0o710},
	} {
		for name := range strings.FieldsSeq(d.names) {
			path := filepath.Join(b.Dir, name)
			if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, d.owner, d.group), os.Chmod(path, d.mode)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *Bed) mainCF() string {
	var s strings.Builder
	s.WriteString(strings.NewReplacer("DIR", b.Dir, "DOMAINS", strings.Join(domains[:], " "), "TRUSTED", b.trusted()).Replace(mainCF))
	longIDs := "yes"
	if b.options.ShortIDs {
		longIDs = "no"
	}
	fmt.Fprintf(&s, "enable_long_queue_ids = %s\n", longIDs)
	ask := ""
	if b.options.Policy != "" {
		ask = b.policy() + ", "
	}
	trusted := ""
	if b.options.Clients != "" {
		fmt.Fprintln(&s, b.clients())
		fmt.Fprintln(&s, "smtpd_authorized_xclient_hosts = 127.0.0.1")
		trusted = "$vedetta_clients, permit_mynetworks, "
	}
	fmt.Fprintf(&s, "smtpd_recipient_restrictions = %spermit_sasl_authenticated, %sreject_unauth_destination\n", ask, trusted)
	fmt.Fprintf(&s, "smtpd_end_of_data_restrictions = %spermit\n", ask)
	if b.options.SASLAccess != "" {
		fmt.Fprintf(&s, "smtpd_sender_restrictions = check_sasl_access hash:%s\n", b.options.SASLAccess)
	}
	if b.options.SASLAway != "" {
		fmt.Fprintln(&s, b.away())
	}
	if b.options.Local != "" {
		fmt.Fprintln(&s, strings.NewReplacer("DIR", b.Config, "TABLE", b.options.Local).Replace(localChecks))
	}
	return overrule(s.String(), b.options.Main)
}

// overrule puts lines into the text of a main.cf, in place of those of the same
// parameters. Each of Postfix's processes would warn of each that is there twice,
// while it starts; postlogd's socket holds ten messages, and postlogd, which warns too
// before it reads them, would wait for itself.
func overrule(text string, lines []string) string {
	name := func(line string) string {
		name, _, _ := strings.Cut(line, "=")
		return strings.TrimSpace(name)
	}
	again := map[string]bool{}
	for _, line := range lines {
		again[name(line)] = true
	}
	var s strings.Builder
	dropped := false
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, " ") { // or it goes on with the one before
			dropped = again[name(line)]
		}
		if !dropped {
			s.WriteString(line)
		}
	}
	for _, line := range lines {
		fmt.Fprintln(&s, line)
	}
	return s.String()
}

// away is the class of the table that is asked where the policy service does
// not answer.
func (b *Bed) away() string {
	return "vedetta_away = check_sasl_access hash:" + b.options.SASLAway + "\nsmtpd_restriction_classes = vedetta_away"
}

// trusted is the networks that send without a login.
func (b *Bed) trusted() string {
	if b.options.Clients == "" {
		return ""
	}
	return Trusted
}

// clients asks the table of trusted clients.
func (b *Bed) clients() string {
	return "vedetta_clients = check_client_access hash:" + b.options.Clients
}

// policy asks the service once, so that a dead one costs no more than its
// deadline, and goes on without it.
func (b *Bed) policy() string {
	timeout := seconds(b.options.PolicyTimeout, 5*time.Second)
	otherwise := "DUNNO"
	if b.options.SASLAway != "" {
		otherwise = "vedetta_away"
	}
	return fmt.Sprintf("check_policy_service { inet:%s, timeout=%s, default_action=%s, try_limit=1 }", b.options.Policy, timeout, otherwise)
}

// makeTables makes empty tables where there are none: Postfix refuses to work
// with one that is missing.
func (b *Bed) makeTables() error {
	for _, path := range []string{b.options.SASLAccess, b.options.SASLAway, b.options.Local, b.options.Clients} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path + ".db"); err == nil {
			continue
		}
		if err := makeEmpty(path); err != nil {
			return err
		}
		if out, err := b.Command("postmap", "hash:"+path).CombinedOutput(); err != nil {
			return fmt.Errorf("postmap: %w\n%s", err, out)
		}
	}
	return nil
}

// routes writes a line for each domain of the Internet and the port of its
// sink.
func (b *Bed) routes(format string) string {
	var s strings.Builder
	for _, domain := range slices.Sorted(maps.Keys(b.sinks)) {
		fmt.Fprintf(&s, format, domain, b.sinks[domain].port)
	}
	fmt.Fprintf(&s, format, Dead, b.deadPort)
	return s.String()
}
