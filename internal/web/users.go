package web

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// A Role is what the holder of a token may do. A greater Role may do all that a
// lesser one may; the zero Role may do nothing.
type Role uint8

// The roles.
const (
	nobody   Role = iota
	Viewer        // look
	Operator      // and give orders about accounts
	Admin         // and say who may speak: agents and tokens
)

var roleNames = [...]string{"nobody", "viewer", "operator", "admin"}

func (r Role) String() string { return roleNames[min(int(r), len(roleNames)-1)] }

// ParseRole reads a role's name.
func ParseRole(name string) (Role, error) {
	for i, n := range roleNames {
		if i > 0 && n == name {
			return Role(i), nil
		}
	}
	return nobody, errors.New("a role is viewer, operator or admin")
}

// A User is who sends a request. The service's own token, which is in a file on
// its machine, has no name.
type User struct {
	Name string
	Role Role
}

// Users knows the tokens beside the service's own. Its methods may be called
// from any goroutine.
type Users interface {
	// User returns who has the token with that SHA-256, or ErrUnknown.
	User(ctx context.Context, hash [sha256.Size]byte) (User, error)
	// Used writes down that somebody asked for something.
	Used(ctx context.Context, u User, what, subject string)

	Tokens(ctx context.Context) ([]Token, error)
	ChangeToken(ctx context.Context, o TokenOrder) (TokenResult, error)
}

// A Token is one line of the list of tokens.
type Token struct {
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Added   time.Time `json:"added"`
	Revoked time.Time `json:"revoked,omitzero"`
}

// A TokenOrder adds a token, or revokes it.
type TokenOrder struct {
	Do   string `json:"do"` // add, revoke
	Name string `json:"name"`
	Role string `json:"role,omitempty"`
	Who  string `json:"who"`
}

// A TokenResult has a token that was added: only its hash is kept.
type TokenResult struct {
	Name  string `json:"name"`
	Token string `json:"token,omitempty"`
}

// How often the holder of a token may ask, and how often all together may ask
// with tokens that are wrong.
const (
	requestsPerSecond = 20
	requestsAtOnce    = 100
	wrongPerSecond    = 5
	wrongAtOnce       = 20
)

// A turnstile limits how often tokens are used.
type turnstile struct {
	once  sync.Once
	wrong *rate.Limiter

	mu    sync.Mutex // guards users
	users map[string]*rate.Limiter
}

// guess reports whether one more wrong token is looked at.
func (t *turnstile) guess() bool {
	t.once.Do(func() { t.wrong = rate.NewLimiter(wrongPerSecond, wrongAtOnce) })
	return t.wrong.Allow()
}

// pass reports whether a user may ask now. There are as many users as tokens.
func (t *turnstile) pass(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == nil {
		t.users = map[string]*rate.Limiter{}
	}
	if t.users[name] == nil {
		t.users[name] = rate.NewLimiter(requestsPerSecond, requestsAtOnce)
	}
	return t.users[name].Allow()
}

var (
	errNoToken    = errors.New("needs the API token as a bearer token")
	errTooMany    = errors.New("too many requests: wait a little")
	errCannotTell = errors.New("whose token this is cannot be told now: the database does not answer; try again")
)

type userKey struct{}

// authorized finds out who asks. A session of the console does not count: a
// browser sends its cookie by itself, a bearer token nobody sends by mistake.
func (s *Server) authorized(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		user, err := User{}, errNoToken
		if ok {
			user, err = s.holder(r.Context(), sha256.Sum256([]byte(given)))
		}
		if err != nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			s.refuse(w, statusOf(err), err)
			return
		}
		s.used(r, user)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
	})
}

// holder returns who has the token with that SHA-256. It compares hashes, so
// that the time taken tells nothing about the token.
func (s *Server) holder(ctx context.Context, hash [sha256.Size]byte) (User, error) {
	if own := sha256.Sum256([]byte(s.Token)); s.Token != "" && subtle.ConstantTimeCompare(hash[:], own[:]) == 1 {
		return User{Role: Admin}, nil
	}
	u, err := User{}, ErrUnknown
	if s.Users != nil {
		u, err = s.Users.User(ctx, hash)
	}
	switch {
	case err == nil && u.Role != nobody && u.Name != "":
		if !s.turnstile.pass(u.Name) {
			return User{}, errTooMany
		}
		return u, nil
	case !s.turnstile.guess():
		return User{}, errTooMany
	case err != nil && !errors.Is(err, ErrUnknown):
		s.Log.Error("whose token it is cannot be told", "err", err)
		return User{}, errCannotTell
	}
	return User{}, errNoToken
}

// used writes down what the holder of a token of his own asks for. The service's own
// token has no name to write down.
func (s *Server) used(r *http.Request, u User) {
	if u.Name != "" {
		q := r.URL.Query()
		s.Users.Used(r.Context(), u, r.Method+" "+r.URL.Path, cmp.Or(q.Get("account"), q.Get("subject")))
	}
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errTooMany):
		return http.StatusTooManyRequests
	case errors.Is(err, errCannotTell):
		return http.StatusServiceUnavailable
	}
	return http.StatusUnauthorized
}

// atLeast lets only users of a role pass.
func (s *Server) atLeast(role Role) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if u := userOf(r); u.Role < role {
				s.refuse(w, http.StatusForbidden, errors.New("this needs a token of the role "+role.String()+"; yours is "+u.Role.String()))
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func userOf(r *http.Request) User {
	u, _ := r.Context().Value(userKey{}).(User)
	return u
}

// who is in whose name an order is given: a user's own, whatever he says.
func who(r *http.Request, said string) string {
	switch name := userOf(r).Name; {
	case name == "":
		return said
	case said == "" || said == name:
		return name
	default:
		text := name + " (" + said
		return text[:min(len(text), 126)] + ")"
	}
}

func (s *Server) tokens(w http.ResponseWriter, r *http.Request) {
	rows, err := s.Users.Tokens(r.Context())
	s.reply(w, rows, err)
}

func (s *Server) changeToken(w http.ResponseWriter, r *http.Request) {
	var o TokenOrder
	if !s.order(w, r, &o) {
		return
	}
	o.Who = who(r, o.Who)
	result, err := s.Users.ChangeToken(r.Context(), o)
	s.reply(w, result, err)
}

// Tokens lists the tokens of the API.
func (c *Client) Tokens(ctx context.Context) ([]Token, error) {
	var rows []Token
	err := c.get(ctx, "/api/v1/tokens", nil, &rows)
	return rows, err
}

// ChangeToken adds or revokes a token.
func (c *Client) ChangeToken(ctx context.Context, o TokenOrder) (result TokenResult, err error) {
	err = c.post(ctx, "/api/v1/tokens", o, &result)
	return result, err
}
