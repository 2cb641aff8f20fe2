// Package web is the HTTP side of serve: a JSON API for vedetta's own commands
// and for automation, the console for people with a browser, /metrics and /healthz.
//
// It listens on loopback. Everything below /api needs a bearer token: the
// service's own, or one with a [Role]. The pages of the console need a session,
// which such a token opens; a session is good for nothing below /api. A request
// that names a browser's foreign origin is refused as well, so that a web page
// cannot act through somebody's open session.
package web

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
)

// maxBody bounds a request's body; the largest honest one is a few hundred bytes.
const maxBody = 64 << 10

// ErrUnknown is returned by a [Watch] that knows nothing about a subject.
var ErrUnknown = errors.New("nothing is known about it")

// ErrInvalid is returned by a [Watch] for a request that makes no sense.
var ErrInvalid = errors.New("invalid request")

// A Watch is the running service, as this package needs it.
type Watch interface {
	Accounts(ctx context.Context, limit int) ([]Account, error)
	Why(ctx context.Context, account string) (Why, error)
	Act(ctx context.Context, order Order) (Result, error)
	Queue(ctx context.Context) (Queue, error)
	Journal(ctx context.Context, subject string, limit int) ([]Entry, error)
	Health(ctx context.Context) Health
}

// Server is the handler's parts. Fleet, Lists, Complaints, Users, Keeper and Metrics may be nil.
type Server struct {
	Watch      Watch
	Fleet      Fleet
	Lists      Lists
	Complaints Complaints
	Users      Users
	Keeper     Keeper
	Token      string
	Metrics    http.Handler
	Log        *slog.Logger

	turnstile turnstile
	sessions  sessions
}

// Handler builds the routes.
func (s *Server) Handler() http.Handler {
	r := chi.NewRouter()
	r.Use(middleware.Recoverer, http.NewCrossOriginProtection().Handler)
	r.Get("/healthz", s.health)
	if s.Metrics != nil {
		r.Handle("/metrics", s.Metrics)
	}
	r.Group(s.console)
	r.Route("/api/v1", func(r chi.Router) {
		r.Use(s.authorized, middleware.RequestSize(maxBody))
		r.Group(func(r chi.Router) {
			r.Use(s.atLeast(Viewer))
			r.Get("/accounts", s.accounts)
			r.Get("/why", s.why)
			r.Get("/queue", s.queue)
			r.Get("/journal", s.journal)
			r.Get("/agents", s.agents)
			r.Get("/key", s.rotation)
			r.Get("/lists", s.lists)
			r.Get("/lists/history", s.listHistory)
			r.Get("/lists/removal", s.listRemoval)
		})
		r.Group(func(r chi.Router) {
			r.Use(s.atLeast(Operator))
			r.Post("/act", s.act)
			r.Post("/complaints", s.complain)
		})
		r.Group(func(r chi.Router) {
			r.Use(s.atLeast(Admin))
			r.Post("/agents", s.changeAgent)
			r.Post("/key", s.rotate)
			if s.Users != nil {
				r.Get("/tokens", s.tokens)
				r.Post("/tokens", s.changeToken)
			}
		})
	})
	return r
}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	h := s.Watch.Health(r.Context())
	code := http.StatusOK
	if !h.OK {
		code = http.StatusServiceUnavailable
	}
	s.write(w, code, h)
}

func (s *Server) accounts(w http.ResponseWriter, r *http.Request) {
	rows, err := s.Watch.Accounts(r.Context(), limit(r, 50))
	s.reply(w, rows, err)
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) {
	why, err := s.Watch.Why(r.Context(), r.URL.Query().Get("account"))
	s.reply(w, why, err)
}

func (s *Server) queue(w http.ResponseWriter, r *http.Request) {
	q, err := s.Watch.Queue(r.Context())
	s.reply(w, q, err)
}

func (s *Server) journal(w http.ResponseWriter, r *http.Request) {
	rows, err := s.Watch.Journal(r.Context(), r.URL.Query().Get("subject"), limit(r, 100))
	s.reply(w, rows, err)
}

func (s *Server) act(w http.ResponseWriter, r *http.Request) {
	var order Order
	if !s.order(w, r, &order) {
		return
	}
	order.Who = who(r, order.Who)
	result, err := s.Watch.Act(r.Context(), order)
	s.reply(w, result, err)
}

// order reads a request's body, or refuses it.
func (s *Server) order(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		s.refuse(w, http.StatusBadRequest, errors.New("body is no order: "+err.Error()))
		return false
	}
	return true
}

func limit(r *http.Request, otherwise int) int {
	n, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || n <= 0 {
		return otherwise
	}
	return min(n, 100_000)
}

func (s *Server) reply(w http.ResponseWriter, body any, err error) {
	switch {
	case err == nil:
		s.write(w, http.StatusOK, body)
	case errors.Is(err, ErrUnknown):
		s.refuse(w, http.StatusNotFound, err)
	case errors.Is(err, ErrInvalid):
		s.refuse(w, http.StatusBadRequest, err)
	default:
		s.refuse(w, http.StatusInternalServerError, err)
	}
}

// refuse tells the error whole: the reader is an operator on this machine.
func (s *Server) refuse(w http.ResponseWriter, code int, err error) {
	s.write(w, code, failure{Error: err.Error()})
}

type failure struct {
	Error string `json:"error"`
}

func (s *Server) write(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(body); err != nil {
		s.Log.Debug("answer not written", "err", err)
	}
}

// Listener settings that an idle or hostile peer cannot stretch.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = 60 * time.Second
	idleTimeout  = 2 * time.Minute
)

// HTTPServer wraps the handler with time-outs.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}
