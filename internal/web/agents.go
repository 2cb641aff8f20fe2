package web

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// A Fleet is the agents of a hub, as this package needs them.
type Fleet interface {
	Agents(ctx context.Context) ([]Agent, error)
	ChangeAgent(ctx context.Context, o AgentOrder) (AgentResult, error)
}

// An Agent is one line of the list of agents.
type Agent struct {
	Name      string        `json:"name"`
	Domains   []string      `json:"domains"`
	State     string        `json:"state"`     // added: it has not enrolled; connected; away; revoked
	Connected bool          `json:"connected"` // it is told of what is in force
	Version   string        `json:"version,omitempty"`
	Seen      time.Time     `json:"seen,omitzero"` // since the hub's start
	Lag       time.Duration `json:"lag_ns"`        // of its newest event, when that came
	Waiting   int           `json:"waiting"`       // batches in its spool
	Skew      time.Duration `json:"skew_ns"`       // by which its clock is ahead
	Blind     []string      `json:"blind,omitempty"`
}

// An AgentOrder adds an agent, or revokes it.
type AgentOrder struct {
	Do      string   `json:"do"` // add, revoke
	Name    string   `json:"name"`
	Domains []string `json:"domains,omitempty"`
	Who     string   `json:"who"`
}

// An AgentResult has the token of an agent that was added: it is kept nowhere.
type AgentResult struct {
	Name  string `json:"name"`
	Token string `json:"token,omitempty"`
}

var errNoFleet = errors.New("this is no hub: agents.listen is not set")

func (s *Server) agents(w http.ResponseWriter, r *http.Request) {
	if s.Fleet == nil {
		s.refuse(w, http.StatusNotFound, errNoFleet)
		return
	}
	rows, err := s.Fleet.Agents(r.Context())
	s.reply(w, rows, err)
}

func (s *Server) changeAgent(w http.ResponseWriter, r *http.Request) {
	if s.Fleet == nil {
		s.refuse(w, http.StatusNotFound, errNoFleet)
		return
	}
	var o AgentOrder
	if !s.order(w, r, &o) {
		return
	}
	o.Who = who(r, o.Who)
	result, err := s.Fleet.ChangeAgent(r.Context(), o)
	s.reply(w, result, err)
}

// Agents lists the agents of a hub.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	var rows []Agent
	err := c.get(ctx, "/api/v1/agents", nil, &rows)
	return rows, err
}

// ChangeAgent adds or revokes an agent.
func (c *Client) ChangeAgent(ctx context.Context, o AgentOrder) (result AgentResult, err error) {
	err = c.post(ctx, "/api/v1/agents", o, &result)
	return result, err
}
