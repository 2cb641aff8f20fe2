package bed

import (
	"cmp"
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

ASK_LIST
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

// The text that docs/exim.md has operators put into the ACLs: a list that asks
// the gate, or without an answer the file, and the lines that call it.
const eximAsk = `vedetta:
  warn
    set acl_m_vedetta = ${readsocket{VEDETTA_SOCKET}{\
      stage=$acl_arg1\t\
      id=$message_exim_id\t\
      ip=$sender_host_address\t\
      auth=${length_300:${sg{$authenticated_id}{[[:cntrl:]]}{?}}}\t\
      local=${length_100:${sg{$sender_ident}{[[:cntrl:]]}{?}}}\t\
      cwd=${length_300:${sg{$initial_cwd}{[[:cntrl:]]}{?}}}\t\
      php=${length_300:${sg{$h_x-php-originating-script:}{[[:cntrl:]]}{?}}}\t\
      size=$message_size\t\
      rcpts=$recipients_count\t\
      from=${length_400:${sg{$sender_address}{[[:cntrl:]]}{?}}}\t\
      to=${length_12000:${sg{$acl_arg2}{[[:cntrl:]]}{?}}}\n\
      }{1s}{}{}}
  warn
    condition = ${if eq{$acl_m_vedetta}{}}
    condition = ${if exists{VEDETTA_AWAY}}
    set acl_m_vedetta_dir = ${sg{$initial_cwd}{[[:cntrl:]]}{?}}
    set acl_m_vedetta_php = ${sg{${sg{$h_x-php-originating-script:}{[[:cntrl:]]}{?}}}{\N^[^:]*:([^?(]*).*$\N}{\$1}}
    set acl_m_vedetta = ${if def:sender_host_address\
      {${lookup{${if def:authenticated_id{$authenticated_id}{client:$sender_host_address}}}lsearch{VEDETTA_AWAY}}}\
      {${lookup{script:${sha256:${length_248:$acl_m_vedetta_dir/$acl_m_vedetta_php}}}lsearch{VEDETTA_AWAY}{$value}\
      {${lookup{script:${sha256:${length_248:$acl_m_vedetta_dir}}}lsearch{VEDETTA_AWAY}{$value}\
      {${lookup{user:$sender_ident}lsearch{VEDETTA_AWAY}}}}}}}}
  deny
    condition = ${if match{$acl_m_vedetta}{\N^DENY \N}}
    message = ${sg{$acl_m_vedetta}{\N^DENY \N}{}}
    log_message = vedetta: $acl_m_vedetta
  defer
    condition = ${if match{$acl_m_vedetta}{\N^DEFER \N}}
    message = ${sg{$acl_m_vedetta}{\N^DEFER \N}{}}
    log_message = vedetta: $acl_m_vedetta
  warn
    condition = ${if match{$acl_m_vedetta}{\N^FREEZE \N}}
    control = freeze/no_tell
    log_message = vedetta: $acl_m_vedetta
  accept
`

func (e *Exim) config() string {
	_, inbound, _ := strings.Cut(e.SMTP, ":")
	_, submission, _ := strings.Cut(e.Submission, ":")
	return strings.NewReplacer(
		"LOGINS", e.listed("authenticated = *", eximLoginKey),
		"USERS", e.listed("", eximUserKey),
		"ASK_LIST", e.asks(strings.Replace(eximAsk, "{1s}", "{"+seconds(e.options.GateTimeout, 3*time.Second)+"}", 1)),
		"ASK_RCPT", e.asks("  require acl = vedetta rcpt"),
		"ASK_DATA", e.asks("  require acl = vedetta data $recipients"),
		"ASK_LOCAL", e.asks("  require acl = vedetta local $recipients"),
		"MAIN", e.asks("VEDETTA_SOCKET = inet:"+e.options.Gate+"\nVEDETTA_AWAY = "+cmp.Or(e.options.AwayFile, "/nonexistent")+"\n")+strings.Join(e.options.Main, "\n"),
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

// asks is a text of an Exim that asks a gate; nothing of another one.
func (e *Exim) asks(text string) string {
	if e.options.Gate == "" {
		return ""
	}
	return text
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
	inbound, err := FreePort()
	if err != nil {
		return err
	}
	submission, err := FreePort()
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
	for _, path := range []string{e.options.BlockFile, e.options.HoldFile, e.options.AwayFile} {
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
