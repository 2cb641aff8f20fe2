package mailq

import (
	"net/netip"
	"slices"
	"strings"
)

// A Directory knows who is who on this server: which logins are one mailbox,
// what they may send as, which identities several people share. It is not
// changed once a [Parser] has it; to change it, give the parser another one.
//
// The zero Directory, and a nil one, know only what every server has.
type Directory struct {
	// Realm is the domain of logins that name none.
	Realm string

	// Aliases leads from a login or address to the login of its mailbox, both
	// in lower case.
	Aliases map[string]string

	// Owners lists by account what it may send as: addresses, or "@domain".
	Owners map[string][]string

	// Shared lists further identities that several people use: accounts
	// ("relay@example.com", "uid:1003"), names of system users, or whole
	// directories of scripts ("script:/var/www/").
	Shared []string

	// Trusted are the networks whose mail leaves without a login.
	Trusted []netip.Prefix

	// Users names the system users by number.
	Users map[int]string
}

// Names that every server uses for many people's mail.
var sharedUsers = []string{
	"amavis", "apache", "apache2", "cpanel", "cpaneleximfilter", "daemon", "debian-exim", "dovecot", "exim", "http", "httpd",
	"list", "mail", "mailman", "mailnull", "nginx", "nobody", "opendkim", "postfix", "psaadm", "root", "spamd", "vmail",
	"www", "www-data", "wwwrun",
}

// Their numbers where they are the same everywhere: root, www-data (Debian),
// apache (Red Hat), nobody (old and new).
var sharedUIDs = []string{"0", "33", "48", "99", "65534"}

// maxLogin bounds the accounts that outside text may make, in bytes.
const maxLogin = 256

// Canonical returns the account of a login: in lower case, with a realm, and
// that of the mailbox if the login is one of its aliases.
func (d *Directory) Canonical(login string) Account {
	if len(login) > maxLogin {
		login = login[:maxLogin]
	}
	name := strings.ToLower(clean([]byte(login), maxLogin))
	if name == "" {
		return ""
	}
	if !strings.Contains(name, "@") {
		if user, domain, ok := strings.Cut(name, "%"); ok && domain != "" {
			name = user + "@" + domain
		}
	}
	if d == nil {
		return Account(name)
	}
	if to, ok := d.Aliases[name]; ok {
		name = to
	}
	if !strings.Contains(name, "@") && d.Realm != "" {
		name += "@" + strings.ToLower(d.Realm)
	}
	for range 8 { // aliases of aliases; a circle ends too
		to, ok := d.Aliases[name]
		if !ok || to == name {
			break
		}
		name = to
	}
	return Account(name)
}

// Owns reports whether account may send as sender. What a forwarder sends on
// is always others', and of accounts that are no logins only what Owners says
// is known, so that not knowing is never held against anybody.
func (d *Directory) Owns(account Account, sender string) bool {
	if sender == "" || account.Kind() == KindForward || account.Kind() == "" {
		return true
	}
	sender = strings.ToLower(sender)
	local, domain, _ := strings.Cut(sender, "@")
	var owned []string
	if d != nil {
		owned = d.Owners[string(account)]
	}
	for _, o := range owned {
		if o == "*" || strings.EqualFold(o, sender) || strings.EqualFold(o, "@"+domain) {
			return true
		}
	}
	if account.Kind() != KindLogin {
		return len(owned) == 0
	}
	if d.Canonical(sender) == account {
		return true
	}
	if base, _, ok := strings.Cut(local, "+"); ok && d.Canonical(base+"@"+domain) == account {
		return true
	}
	return !strings.Contains(string(account), "@") && local == string(account)
}

// IsShared reports whether several people stand behind account: it is watched
// and told about, but never blocked as a whole.
func (d *Directory) IsShared(account Account) bool {
	name := string(account)
	kind := account.Kind()
	if kind == "" {
		return false
	}
	bare := name
	if kind != KindLogin {
		bare = name[len(kind)+1:]
	}
	if d != nil && sharedBy(d.Shared, name, bare) {
		return true
	}
	switch kind {
	case KindUser:
		return slices.Contains(sharedUsers, strings.ToLower(bare))
	case KindUID:
		return slices.Contains(sharedUIDs, bare)
	case KindClient:
		addr, err := netip.ParseAddr(bare)
		return err == nil && addr.IsLoopback()
	case KindLogin:
		user, domain, _ := strings.Cut(bare, "@")
		own := domain == "" || d != nil && strings.EqualFold(domain, d.Realm)
		return own && slices.Contains(sharedUsers, user)
	}
	return false
}

func sharedBy(list []string, name, bare string) bool {
	for _, s := range list {
		if strings.EqualFold(s, name) || strings.EqualFold(s, bare) {
			return true
		}
		if strings.HasSuffix(s, "/") && strings.HasPrefix(name, s) {
			return true
		}
	}
	return false
}

// trusts reports whether mail from addr may leave without a login.
func (d *Directory) trusts(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	if d == nil {
		return false
	}
	for _, p := range d.Trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// user names the system user with a number: user:NAME if the name is known.
func (d *Directory) user(uid int64, digits string) Account {
	if d != nil {
		if name, ok := d.Users[int(uid)]; ok {
			return Account(KindUser + ":" + name)
		}
	}
	return Account(KindUID + ":" + digits)
}
