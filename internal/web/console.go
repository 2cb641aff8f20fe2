package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

// The console is pages for people: HTML made here, without a script. Whatever
// they show may be a stranger's text. It is escaped by html/template, what
// cannot be seen of it is made visible by [visible], and a page may load its
// style sheet and nothing else.

//go:embed console
var files embed.FS

// pages are the templates, each within layout.html, by name. They are read when the
// first page is asked for, as most commands show none.
var pages = sync.OnceValue(func() map[string]*template.Template {
	all := map[string]*template.Template{}
	for _, name := range []string{"sign-in", "lists", "history", "trouble"} {
		page := template.New("layout.html").Funcs(template.FuncMap{"count": count})
		all[name] = template.Must(page.ParseFS(files, "console/layout.html", "console/"+name+".html"))
	}
	return all
})

// style is the style sheet, and styleAddress where it is: another one has
// another address.
var style, styleAddress = readStyle()

func readStyle() (text []byte, address string) {
	text, err := files.ReadFile("console/style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	sum := sha256.Sum256(text)
	return text, "/style.css?" + hex.EncodeToString(sum[:6])
}

// maxForm bounds the body of a form, in bytes.
const maxForm = 4 << 10

// console adds the pages to the routes.
func (s *Server) console(r chi.Router) {
	r.Use(harmless, middleware.RequestSize(maxForm))
	r.Get("/style.css", s.style)
	r.Get("/sign-in", s.signInForm)
	r.Post("/sign-in", s.signIn)
	r.Post("/sign-out", s.signOut)
	r.Group(func(r chi.Router) {
		r.Use(s.signedIn)
		r.Get("/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/lists", http.StatusSeeOther) })
		r.Get("/lists", s.listsPage)
		r.Get("/lists/history", s.historyPage)
	})
}

// policy lets a page load the style sheet and pictures that are part of it, send its
// forms here, and be framed by nobody.
const policy = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// harmless has the browser do no more with a page than to show it, and keep no
// copy of it.
func harmless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (s *Server) style(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	if _, err := w.Write(style); err != nil {
		s.Log.Debug("answer not written", "err", err)
	}
}

// A pageView is what layout.html shows around a page.
type pageView struct {
	Name  string // of its template
	Title string
	Style string // address of the style sheet
	User  User   // nobody's: nobody is signed in
	Now   moment
	Body  any
}

// page answers with a page, whole or not at all.
func (s *Server) page(w http.ResponseWriter, r *http.Request, code int, name, title string, body any) {
	now := time.Now()
	var out bytes.Buffer
	err := pages()[name].ExecuteTemplate(&out, "layout.html", pageView{name, title, styleAddress, userOf(r), moment{now, now}, body})
	if err != nil {
		s.Log.Error("page not made", "page", name, "err", err)
		http.Error(w, "The page cannot be shown; the log of the service says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	if _, err := w.Write(visible(out.Bytes())); err != nil {
		s.Log.Debug("answer not written", "err", err)
	}
}

// trouble answers with what went wrong, whole to those who are signed in, as the API does.
func (s *Server) trouble(w http.ResponseWriter, r *http.Request, code int, err error) {
	s.page(w, r, code, "trouble", http.StatusText(code), err.Error())
}

// maxMarks is how many combining characters follow each other in any language that is
// written; more of them would cover what stands around.
const maxMarks = 4

// visible writes what cannot be seen in a page, such as a control character
// or one that turns the direction of the text around, as its number: [U+202E].
// It looks at the whole page, so that no field can be forgotten.
func visible(page []byte) []byte {
	out := make([]byte, 0, len(page))
	marks := 0
	for len(page) > 0 {
		r, n := utf8.DecodeRune(page)
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && n == 1:
			out = append(out, "\ufffd"...)
		case r == '\n' || r == '\t' || unicode.IsPrint(r) && marks <= maxMarks:
			out = append(out, page[:n]...)
		default:
			out = fmt.Appendf(out, "[U+%04X]", r)
		}
		page = page[n:]
	}
	return out
}

// count writes a number of things, as 4,096.
func count(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// A moment is a time as a page shows it: in UTC, and how long ago that is.
type moment struct{ At, now time.Time }

// Known reports whether there is a time to show.
func (m moment) Known() bool { return !m.At.IsZero() }

// Machine is the time for programs that read the page.
func (m moment) Machine() string { return m.At.UTC().Format(time.RFC3339) }

// Text is the time to the minute.
func (m moment) Text() string { return m.At.UTC().Format("2006-01-02 15:04") }

// Ago is how long before the page was made: "3 h ago".
func (m moment) Ago() string {
	switch d := m.now.Sub(m.At); {
	case d < -time.Minute:
		return "in " + roughly(-d)
	case d < time.Minute:
		return "just now"
	default:
		return roughly(d) + " ago"
	}
}

// roughly writes a duration of a minute or more in its largest unit.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Hour:
		return fmt.Sprint(int(d/time.Minute), " min")
	case d < 2*day:
		return fmt.Sprint(int(d/time.Hour), " h")
	case d < 730*day:
		return fmt.Sprint(int(d/day), " days")
	}
	return fmt.Sprint(int(d/(365*day)), " years")
}
