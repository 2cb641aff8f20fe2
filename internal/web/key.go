package web

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// A Keeper has the key with which recipients are hashed, as this package needs it.
type Keeper interface {
	Rotation(ctx context.Context) (Rotation, error)
	Rotate(ctx context.Context, o KeyOrder) (Rotation, error)
}

// A Rotation is how the replacement of the recipients' key goes; the zero Rotation
// is none.
type Rotation struct {
	Begun time.Time `json:"begun,omitzero"`
	Ends  time.Time `json:"ends,omitzero"`   // at the earliest; zero while it waits for somebody
	Last  string    `json:"last,omitempty"`  // the agent from which on the time counts; empty: from the beginning
	Waits []string  `json:"waits,omitempty"` // for agents that do not hash with both keys
}

// A KeyOrder begins to replace the recipients' key.
type KeyOrder struct {
	For   time.Duration `json:"for,omitempty"`   // how long recipients are learnt under both keys; nanoseconds, 0: keep.accounts
	Again bool          `json:"again,omitempty"` // it is being replaced already, and begins anew, with another next key
	Who   string        `json:"who"`
	Why   string        `json:"why,omitempty"`
}

var errNoKey = errors.New("this is an agent: its hub has the key")

func (s *Server) rotation(w http.ResponseWriter, r *http.Request) {
	if s.Keeper == nil {
		s.refuse(w, http.StatusNotFound, errNoKey)
		return
	}
	rotation, err := s.Keeper.Rotation(r.Context())
	s.reply(w, rotation, err)
}

func (s *Server) rotate(w http.ResponseWriter, r *http.Request) {
	if s.Keeper == nil {
		s.refuse(w, http.StatusNotFound, errNoKey)
		return
	}
	var o KeyOrder
	if !s.order(w, r, &o) {
		return
	}
	o.Who = who(r, o.Who)
	rotation, err := s.Keeper.Rotate(r.Context(), o)
	s.reply(w, rotation, err)
}

// Rotation asks how the replacement of the recipients' key goes.
func (c *Client) Rotation(ctx context.Context) (rotation Rotation, err error) {
	err = c.get(ctx, "/api/v1/key", nil, &rotation)
	return rotation, err
}

// Rotate begins to replace the recipients' key.
func (c *Client) Rotate(ctx context.Context, o KeyOrder) (rotation Rotation, err error) {
	err = c.post(ctx, "/api/v1/key", o, &rotation)
	return rotation, err
}
