package app

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
)

// Agents that enrol at the same moment are all welcome afterwards, and what was
// revoked meanwhile stays so.
func TestRosterAtOnce(t *testing.T) {
	h := newListeningHub(t)
	const agents = 120
	tokens := make([]hub.Token, agents)
	for i := range tokens {
		text, err := h.roster.add(t.Context(), fmt.Sprint("mx", i), []string{"*"}, h.server.CA, "root")
		if err != nil {
			t.Fatal(err)
		}
		if tokens[i], err = hub.ParseToken(text); err != nil {
			t.Fatal(err)
		}
	}
	enrolled := make([]hub.Member, agents)
	var all sync.WaitGroup
	for i, token := range tokens {
		all.Go(func() {
			m, err := h.roster.Enrol(t.Context(), token.Agent, sha256.Sum256(token.Secret))
			if err != nil {
				t.Error(err)
			}
			enrolled[i] = m
			if i%2 == 0 {
				return
			}
			if err := h.db.RevokeAgent(t.Context(), token.Agent, time.Now(), "root"); err != nil {
				t.Error(err)
			}
			if err := h.roster.reload(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, m := range enrolled {
		now, err := h.roster.Member(fmt.Sprint("mx", i))
		if revoked := i%2 == 1; revoked != (err != nil) || !revoked && (now.Enrolment != m.Enrolment || m.Enrolment == "") {
			t.Errorf("mx%d: %+v, %v; enrolled as %+v", i, now, err, m)
		}
	}
}
