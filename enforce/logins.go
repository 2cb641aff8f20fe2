package enforce

import (
	"slices"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
)

// Logins returns a function that lists every name under which an account may
// log in, as far as d knows: the account's own, its aliases, those without
// the realm that the server adds, and user%domain for user@domain. Each of
// them leads back to the account, so that no other is ever touched. Accounts
// that are no logins have none.
//
// It goes through d.Aliases once; call it again when d changes.
func Logins(d *mailq.Directory) func(subject string) []string {
	aliases := make(map[mailq.Account][]string)
	realm := ""
	if d != nil {
		realm = strings.ToLower(d.Realm)
		for alias := range d.Aliases {
			account := d.Canonical(alias)
			aliases[account] = append(aliases[account], strings.ToLower(alias))
		}
	}
	return func(subject string) []string {
		account := mailq.Account(subject)
		if account.Kind() != mailq.KindLogin {
			return nil
		}
		var logins []string
		for _, name := range append([]string{subject}, aliases[account]...) {
			logins = append(logins, name)
			user, domain, ok := strings.Cut(name, "@")
			if !ok || user == "" {
				continue
			}
			logins = append(logins, user+"%"+domain)
			if domain == realm {
				logins = append(logins, user)
			}
		}
		slices.Sort(logins)
		return slices.DeleteFunc(slices.Compact(logins), func(login string) bool {
			return d.Canonical(login) != account
		})
	}
}
