package bed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	eximUser       = "Debian-exim"           // whom Debian's Exim works as
	eximConfigured = "/etc/exim4/exim4.conf" // where it looks for its configuration
)

// What the log tells is what cPanel's tells, and a few fields more. Frozen
// mail stays: a server that is to hold mail may neither time it out nor thaw it.
const eximConf = `exim_path = BINARY
spool_directory = DIR/spool
split_spool_directory = true
log_file_path = DIR/log/%slog
pid_file_path = DIR/exim.pid
primary_hostname = mx2.hosting.test
keep_environment =
local_interfaces = 127.0.0.1
daemon_smtp_ports = INBOUND : SUBMISSION
tls_advertise_hosts =
domainlist local_domains = DOMAINS
host_lookup =
rfc1413_query_timeout = 0s
dns_ipv4_lookup = *
smtp_accept_max = 200
smtp_accept_max_nonmail = 1000
log_selector = +all_parents +arguments +connection_reject +deliver_time \
  +delivery_size +incoming_interface +incoming_port +outgoing_port +pid \
  +queue_time +received_recipients +received_sender +retry_defer \
  +sender_on_delivery +smtp_confirmation +smtp_connection +subject \
  +tls_cipher +unknown_in_list
acl_smtp_rcpt = acl_check_rcpt
acl_smtp_data = acl_check_data
acl_not_smtp = acl_check_local
never_users = root
untrusted_set_sender = *
MAIN

begin acl

acl_check_rcpt:
LOGINS
ASK_RCPT
  accept
    authenticated = *
  accept
    domains = +local_domains
  deny
    message = relay not permitted

acl_check_data:
ASK_DATA
  accept

acl_check_local:
USERS
ASK_LOCAL
  accept

begin routers

outside:
  driver = manualroute
  domains = ! +local_domains
  route_data = ${lookup{$domain}lsearch{DIR/routes}}
  self = send
  transport = remote_smtp

nowhere:
  driver = redirect
  domains = ! +local_domains
  allow_defer
  data = :defer: no route in the test bed
  no_more

inside:
  driver = accept
  domains = +local_domains
  transport = inbox

begin transports

remote_smtp:
  driver = smtp
  allow_localhost
  hosts_try_fastopen =

inbox:
  driver = lmtp
  socket = LMTP
  batch_max = 10

begin retry

*  *  F,10m,30s; F,2h,5m

begin authenticators

dovecot_plain:
  driver = dovecot
  public_name = PLAIN
  server_socket = AUTH
  server_set_id = $auth1

dovecot_login:
  driver = dovecot
  public_name = LOGIN
  server_socket = AUTH
  server_set_id = $auth1
`

// The text that docs/tables.md has operators put first in the ACL at RCPT and in
// that for mail of local programs. A file that is missing stops nobody.
const (
	eximBlocked = `  deny
    WHO
    condition = ${if exists{FILE}}
    condition = ${lookup{KEY}lsearch{FILE}{yes}{no}}
    message = 5.7.1 ${lookup{KEY}lsearch{FILE}}
    log_message = vedetta: blocked KEY
`
	eximHeld = `  warn
    WHO
    condition = ${if exists{FILE}}
    condition = ${lookup{KEY}lsearch{FILE}{yes}{no}}
    control = freeze
    log_message = vedetta: held KEY
`
	eximLoginKey = "$authenticated_id"
	eximUserKey  = "user:$sender_ident"
)

// The text that asks the gate: one line there, one back, and silence means OK.
const eximAsk = `  warn
    set acl_m_vedetta = ${readsocket{inet:GATE}{stage=STAGE\tid=$message_exim_id\tauth=$authenticated_id\tlocal=$sender_ident\tip=$sender_host_address\tfrom=$sender_address\trcpt=RCPT\trcpts=$recipients_count\tsize=$message_size\tsubject=$rh_subject:\n}{TIMEOUT}{}{OK}}
  deny
    condition = ${if match{$acl_m_vedetta}{^DENY}}
    message = ${sg{$acl_m_vedetta}{^DENY }{}}
    log_message = vedetta: $acl_m_vedetta
  warn
    condition = ${if match{$acl_m_vedetta}{^FREEZE}}
    control = freeze
    log_message = vedetta: $acl_m_vedetta
`

func (e *Exim) config() string {
	_, inbound, _ := strings.Cut(e.SMTP, ":")
	_, submission, _ := strings.Cut(e.Submission, ":")
	return strings.NewReplacer(
		"LOGINS", e.listed("authenticated = *", eximLoginKey),
		"USERS", e.listed("", eximUserKey),
		"ASK_RCPT", e.ask("rcpt", "$local_part@$domain"),
		"ASK_DATA", e.ask("data", ""),
		"ASK_LOCAL", e.ask("local", ""),
		"MAIN", strings.Join(e.options.Main, "\n"),
		"BINARY", e.Binary,
		"DIR", e.Dir,
		"INBOUND", inbound,
		"SUBMISSION", submission,
		"DOMAINS", strings.Join(domains[:], " : "),
		"LMTP", e.Bed.LMTP,
		"AUTH", e.Bed.Auth,
	).Replace(eximConf)
}

// listed is the part of an ACL that looks a key up in the files, of clients
// that a condition is true for.
func (e *Exim) listed(who, key string) string {
	text := ""
	if e.options.BlockFile != "" {
		text += strings.NewReplacer("WHO", who, "KEY", key, "FILE", e.options.BlockFile).Replace(eximBlocked)
	}
	if e.options.HoldFile != "" {
		text += strings.NewReplacer("WHO", who, "KEY", key, "FILE", e.options.HoldFile).Replace(eximHeld)
	}
	return text
}

// ask is the part of an ACL that asks the gate.
func (e *Exim) ask(stage, rcpt string) string {
	if e.options.Gate == "" {
		return ""
	}
	return strings.NewReplacer("GATE", e.options.Gate, "STAGE", stage, "RCPT", rcpt,
		"TIMEOUT", seconds(e.options.GateTimeout, 3*time.Second)).Replace(eximAsk)
}

// seconds writes a duration as mail servers read it, with a default for 0.
func seconds(d, otherwise time.Duration) string {
	if d == 0 {
		d = otherwise
	}
	return fmt.Sprintf("%ds", (d+time.Second-1)/time.Second)
}

// makeFiles makes everything that Exim finds.
func (e *Exim) makeFiles() error {
	uid, err := e.makeEtc()
	if err != nil {
		return err
	}
	inbound, err := freePort()
	if err != nil {
		return err
	}
	submission, err := freePort()
	if err != nil {
		return err
	}
	e.SMTP = fmt.Sprintf("127.0.0.1:%d", inbound)
	e.Submission = fmt.Sprintf("127.0.0.1:%d", submission)
	for _, d := range []struct {
		name string
		mode os.FileMode
	}{{"root", 0o755}, {"spool", 0o750}, {"log", 0o750}} {
		path := filepath.Join(e.Dir, d.name)
		if err := errors.Join(os.MkdirAll(path, d.mode), os.Chown(path, uid, uid)); err != nil {
			return err
		}
	}
	for _, path := range []string{e.options.BlockFile, e.options.HoldFile} {
		if err := makeEmpty(path); err != nil {
			return err
		}
	}
	return errors.Join(
		os.WriteFile(filepath.Join(e.Dir, "routes"), []byte(e.Bed.routes("%s: 127.0.0.1::%d\n")), 0o644),
		os.WriteFile(filepath.Join(e.Dir, "etc/exim4/exim4.conf"), []byte(e.config()), 0o644),
	)
}

// makeEtc makes what the namespace lays over /etc: the configuration and, if
// the machine has none, the user that Debian's Exim is built for.
func (e *Exim) makeEtc() (uid int, err error) {
	etc := filepath.Join(e.Dir, "etc")
	if err := os.MkdirAll(filepath.Join(etc, "exim4"), 0o755); err != nil {
		return 0, err
	}
	if uid, err := userID(eximUser); err == nil {
		return uid, nil
	}
	uid = 64999 // of those that Debian leaves to the machine's administrator
	for name, line := range map[string]string{
		"passwd": fmt.Sprintf("%s:x:%d:%d::%s:/usr/sbin/nologin\n", eximUser, uid, uid, e.Spool),
		"group":  fmt.Sprintf("%s:x:%d:\n", eximUser, uid),
	} {
		text, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			return 0, err
		}
		if err := os.WriteFile(filepath.Join(etc, name), append(text, line...), 0o644); err != nil {
			return 0, err
		}
	}
	return uid, nil
}
