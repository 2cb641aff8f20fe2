package enforce

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
)

// ErrUser means that a system user cannot be stopped by name without stopping
// somebody else, or at all. All others were written.
var ErrUser = errors.New("system user cannot be stopped by the table")

// systemUsers are the names by which a mail server knows the system users that
// an entry's account sends as. Root, the mail server's own users and identities
// that several people use are left out and named in the error.
func systemUsers(e Entry, shared func(mailq.Account) bool) (names []string, err error) {
	accounts := []mailq.Account{mailq.Account(e.Subject)}
	for _, name := range e.Users {
		accounts = append(accounts, mailq.Account(mailq.KindUser+":"+name))
	}
	slices.Sort(accounts)
	var left []error
	for _, account := range slices.Compact(accounts) {
		name, err := systemUser(account, shared)
		if err != nil {
			left = append(left, fmt.Errorf("%w: %.80q: %w", ErrUser, account, err))
		} else if name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), errors.Join(left...)
}

// systemUser is the name of one system user; empty for accounts of other
// kinds.
func systemUser(account mailq.Account, shared func(mailq.Account) bool) (string, error) {
	kind := account.Kind()
	if kind != mailq.KindUser && kind != mailq.KindUID {
		return "", nil
	}
	name, uid, err := lookUpUser(kind, string(account)[len(kind)+1:])
	if err != nil {
		return "", err
	}
	for _, a := range []mailq.Account{account, mailq.Account(mailq.KindUser + ":" + name), mailq.Account(mailq.KindUID + ":" + uid)} {
		if (*mailq.Directory)(nil).IsShared(a) || shared != nil && shared(a) {
			return "", fmt.Errorf("several people use %s", a)
		}
	}
	return name, nil
}

// SameUser returns the accounts of the system user that account is, by name and
// by number: Exim's log has the one, Postfix's the other. It returns account
// alone if that is another kind, or nobody's own.
func SameUser(account mailq.Account) []mailq.Account {
	if kind := account.Kind(); kind == mailq.KindUser || kind == mailq.KindUID {
		if name, uid, err := lookUpUser(kind, string(account)[len(kind)+1:]); err == nil {
			return []mailq.Account{mailq.Account(mailq.KindUser + ":" + name), mailq.Account(mailq.KindUID + ":" + uid)}
		}
	}
	return []mailq.Account{account}
}

// lookUpUser returns the name and number of a user that the system knows, by
// either of them. A mail server asks the system who has the uid of its caller:
// where two names share one uid the second is nobody's, and stopping the first
// would stop both.
func lookUpUser(kind, text string) (name, uid string, err error) {
	if !isUserName(text) {
		return "", "", errors.New("want a name in lower case or a number")
	}
	find := user.Lookup
	if kind == mailq.KindUID {
		find = user.LookupId
	}
	found, err := find(text)
	if err != nil {
		return "", "", err
	}
	first, err := user.LookupId(found.Uid)
	switch {
	case err != nil:
		return "", "", err
	case first.Username != found.Username:
		return "", "", fmt.Errorf("%s has the uid %s too", first.Username, found.Uid)
	case !isUserName(first.Username) || first.Username == "unknown": // Postfix's word for uids without a name
		return "", "", fmt.Errorf("its name is %.80q", first.Username)
	}
	return first.Username, first.Uid, nil
}

// isUserName reports whether text is a plain name, or number, of a system
// user. Tables do not tell cases apart.
func isUserName(text string) bool {
	odd := func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("_.-$", r)
	}
	return text != "" && len(text) <= 256 && text[0] != '-' && strings.IndexFunc(text, odd) < 0
}
