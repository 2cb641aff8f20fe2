package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Bounds of sessions.
const (
	sessionIdle      = time.Hour      // without a request, then it is over
	sessionLife      = 12 * time.Hour // whatever happens: somewhat more than a shift
	sessionsPerToken = 10             // the one that is idle the longest makes room
	sessionsAtMost   = 1000           // over all tokens; likewise
)

// A session is a browser that showed a token. It is worth what the token is
// worth with each request: nothing, once that is revoked.
type session struct {
	token  [sha256.Size]byte // SHA-256 of it
	opened time.Time
	used   time.Time
}

func (s session) over(now time.Time) bool {
	return now.Sub(s.used) > sessionIdle || now.Sub(s.opened) > sessionLife
}

// sessions are those of the console. They are in memory only: a restart signs
// everybody out. The zero value has none.
type sessions struct {
	mu   sync.Mutex
	open map[[sha256.Size]byte]session // by the SHA-256 of their cookie
}

// begin opens a session for a token and returns its cookie, of 256 random
// bits.
func (s *sessions) begin(token [sha256.Size]byte, now time.Time) (cookie string) {
	cookie = rand.Text() + rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.makeRoomLocked(token, now)
	if s.open == nil {
		s.open = map[[sha256.Size]byte]session{}
	}
	s.open[sha256.Sum256([]byte(cookie))] = session{token: token, opened: now, used: now}
	return cookie
}

// makeRoomLocked removes what is over, and what would be too much with one
// more session for token.
func (s *sessions) makeRoomLocked(token [sha256.Size]byte, now time.Time) {
	for id, o := range s.open {
		if o.over(now) {
			delete(s.open, id)
		}
	}
	mine := func(o session) bool { return o.token == token }
	s.thinLocked(sessionsPerToken-1, mine)
	s.thinLocked(sessionsAtMost-1, func(session) bool { return true })
}

// thinLocked leaves at most n of the sessions that are meant, those that were
// used last.
func (s *sessions) thinLocked(n int, meant func(session) bool) {
	for {
		var oldest [sha256.Size]byte
		count := 0
		for id, o := range s.open {
			if !meant(o) {
				continue
			}
			if count == 0 || o.used.Before(s.open[oldest].used) {
				oldest = id
			}
			count++
		}
		if count <= n {
			return
		}
		delete(s.open, oldest)
	}
}

// find returns the token of the session that has the cookie, and counts as a
// use of it.
func (s *sessions) find(cookie string, now time.Time) (token [sha256.Size]byte, ok bool) {
	id := sha256.Sum256([]byte(cookie))
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.open[id]
	if ok && o.over(now) {
		delete(s.open, id)
		ok = false
	}
	if ok {
		o.used = now
		s.open[id] = o
	}
	return o.token, ok
}

// end ends the session that has the cookie.
func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, sha256.Sum256([]byte(cookie)))
}

// endAll ends the sessions of a token.
func (s *sessions) endAll(token [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, o := range s.open {
		if o.token == token {
			delete(s.open, id)
		}
	}
}

// isPlain reports whether a browser asked by plain http on its own machine, as
// through an SSH tunnel. Everywhere else the cookie goes over TLS or not at all.
func isPlain(r *http.Request) bool {
	u, err := url.Parse("//" + r.Host)
	if err != nil || r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		return false
	}
	addr, _ := netip.ParseAddr(u.Hostname())
	return addr.IsLoopback() || strings.EqualFold(u.Hostname(), "localhost")
}

// cookieOf is the session's cookie with that value. By its name a browser takes
// it from this host alone, over TLS (RFC 6265bis, section 4.1.3.2); it ends with the browser.
func cookieOf(r *http.Request, value string) *http.Cookie {
	c := &http.Cookie{Name: "__Host-vedetta", Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}
	if isPlain(r) {
		c.Name, c.Secure = "vedetta", false
	}
	return c
}

// presented is the cookie that came with a request, empty if none did.
func presented(r *http.Request) string {
	if c, err := r.Cookie(cookieOf(r, "").Name); err == nil {
		return c.Value
	}
	return ""
}

// signedIn lets only those pass who have a session of a token that is good
// now; the others are asked to sign in.
func (s *Server) signedIn(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := s.sessions.find(presented(r), time.Now())
		user, err := User{}, errNoToken
		if ok {
			user, err = s.holder(r.Context(), token)
		}
		switch {
		case err == nil:
			s.used(r, user)
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, user)))
		case errors.Is(err, errNoToken):
			s.sessions.endAll(token)
			http.Redirect(w, r, "/sign-in?"+url.Values{"to": {r.URL.RequestURI()}}.Encode(), http.StatusSeeOther)
		default:
			s.trouble(w, r, statusOf(err), err)
		}
	})
}

// A signInView is the form by which one signs in.
type signInView struct {
	To    string // the page that was wanted
	Error string
}

func (s *Server) signInForm(w http.ResponseWriter, r *http.Request) {
	s.page(w, r, http.StatusOK, "sign-in", "Sign in", signInView{To: wanted(r.FormValue("to"))})
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	to := wanted(r.PostFormValue("to"))
	token := sha256.Sum256([]byte(strings.TrimSpace(r.PostFormValue("token"))))
	user, err := s.holder(r.Context(), token)
	if err != nil {
		text := err.Error()
		if errors.Is(err, errNoToken) {
			text = "this is no token of this service, or it was revoked"
		}
		s.page(w, r, statusOf(err), "sign-in", "Sign in", signInView{To: to, Error: text})
		return
	}
	s.used(r, user)
	s.sessions.end(presented(r))
	http.SetCookie(w, cookieOf(r, s.sessions.begin(token, time.Now())))
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (s *Server) signOut(w http.ResponseWriter, r *http.Request) {
	s.sessions.end(presented(r))
	gone := cookieOf(r, "")
	gone.MaxAge = -1
	http.SetCookie(w, gone)
	http.Redirect(w, r, "/sign-in", http.StatusSeeOther)
}

// wanted is the page of the console that to names. It is a stranger's text, and
// leads nowhere else.
func wanted(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.Path != "/lists" && u.Path != "/lists/history" || len(to) > 1000 {
		return "/lists"
	}
	return (&url.URL{Path: u.Path, RawQuery: u.Query().Encode()}).String()
}
