package mailq

import "strings"

// An Account is who is answerable for a message that leaves:
//
//	alice@example.com                        a login, canonical
//	script:/home/u/public_html/x.php         a web script, or its directory
//	forward:box@example.com                  a mailbox that forwards
//	user:NAME, uid:NUMBER                    a system user
//	client:192.0.2.1                         a trusted client
//
// It is never empty for mail that leaves and never shared by several people;
// see [Directory] for the identities that are.
type Account string

// The kinds of accounts, as [Account.Kind] names them.
const (
	KindLogin   = "login"
	KindScript  = "script"
	KindForward = "forward"
	KindUser    = "user"
	KindUID     = "uid"
	KindClient  = "client"
)

// Kind says what sort of account a is; empty for the empty account.
func (a Account) Kind() string {
	if a == "" {
		return ""
	}
	prefix, _, ok := strings.Cut(string(a), ":")
	if !ok {
		return KindLogin
	}
	switch prefix {
	case KindScript, KindForward, KindUser, KindUID, KindClient:
		return prefix
	}
	return KindLogin
}
