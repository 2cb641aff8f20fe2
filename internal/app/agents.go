package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
)

// A fleetDesk is where operators look at the agents and change them.
type fleetDesk struct{ *service }

// desk is nil where there is no fleet.
func (s *service) desk() web.Fleet {
	if s.fleet == nil {
		return nil
	}
	return fleetDesk{s}
}

// Agents implements web.Fleet.
func (s fleetDesk) Agents(ctx context.Context) ([]web.Agent, error) {
	rows, err := s.store.Agents(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]hub.Presence{}
	for _, p := range s.fleet.server.Presences() {
		seen[p.Agent] = p
	}
	health := s.Health(ctx)
	_, rotating := s.keyring.get()
	agents := make([]web.Agent, len(rows))
	for i, row := range rows {
		p := seen[row.Name]
		agents[i] = web.Agent{
			Name: row.Name, Domains: row.Domains, State: stateOf(row, p), Connected: p.Streams > 0, Version: p.Version, Seen: p.Seen,
			Lag: p.Lag, Waiting: p.Waiting, Skew: p.Skew,
		}
		for _, part := range []string{"agent " + row.Name, "clock of agent " + row.Name, "keys of agent " + row.Name} {
			if why := health.Parts[part]; why != "" && why != "ok" {
				agents[i].Blind = append(agents[i].Blind, why)
			}
		}
		if rotating.waitsFor(row) {
			agents[i].Blind = append(agents[i].Blind, "does not hash recipients with the next key: the rotation waits for it")
		}
	}
	return agents, nil
}

// The states of agents.
const (
	agentAdded     = "added" // and has not enrolled
	agentConnected = "connected"
	agentAway      = "away"
	agentRevoked   = "revoked"
)

func stateOf(row store.AgentRow, p hub.Presence) string {
	switch {
	case !row.Revoked.IsZero():
		return agentRevoked
	case row.Enrolment == "":
		return agentAdded
	case p.Streams > 0:
		return agentConnected
	}
	return agentAway
}

// fleet counts the agents.
func (m *metrics) fleet(rows []store.AgentRow, seen map[string]hub.Presence) {
	states := map[string]int{agentAdded: 0, agentConnected: 0, agentAway: 0, agentRevoked: 0}
	var lag time.Duration
	waiting := 0
	for _, row := range rows {
		p := seen[row.Name]
		states[stateOf(row, p)]++
		lag, waiting = max(lag, p.Lag), waiting+p.Waiting
	}
	for state, n := range states {
		m.agents.WithLabelValues(state).Set(float64(n))
	}
	m.agentLag.Set(lag.Seconds())
	m.agentWaiting.Set(float64(waiting))
}

// ChangeAgent implements web.Fleet.
func (s fleetDesk) ChangeAgent(ctx context.Context, o web.AgentOrder) (web.AgentResult, error) {
	result := web.AgentResult{Name: o.Name}
	switch {
	case !hub.ValidName(o.Name):
		return result, fmt.Errorf("%w: an agent is called as its host is, in lower case: %q is not", web.ErrInvalid, o.Name)
	case strings.TrimSpace(o.Who) == "" || len(o.Who) > maxWho:
		return result, fmt.Errorf("%w: needs who orders it, in at most %d bytes", web.ErrInvalid, maxWho)
	case o.Do == "revoke":
		return result, s.revoke(ctx, o)
	case o.Do != "add":
		return result, fmt.Errorf("%w: %q is neither add nor revoke", web.ErrInvalid, o.Do)
	}
	domains, err := checkDomains(o.Domains)
	if err == nil && len(domains) == 0 {
		err = errors.New("needs the domains whose mailboxes the agent may speak of, or * for all")
	}
	if err != nil {
		return result, fmt.Errorf("%w: %w", web.ErrInvalid, err)
	}
	result.Token, err = s.fleet.roster.add(ctx, o.Name, domains, s.fleet.server.CA, o.Who)
	return result, err
}

func (s fleetDesk) revoke(ctx context.Context, o web.AgentOrder) error {
	err := s.store.RevokeAgent(ctx, o.Name, time.Now(), o.Who)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: there is no agent %s, or it is revoked", web.ErrInvalid, o.Name)
	}
	if err != nil {
		return err
	}
	if err := s.fleet.roster.reload(ctx); err != nil {
		return err
	}
	s.fleet.server.Drop(o.Name)
	return nil
}
