package app

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vedetta-watch/vedetta/internal/hub"
	"github.com/vedetta-watch/vedetta/internal/store"
)

// A roster is the agents of this hub. It answers from memory, for it is asked
// with each batch; the database has the same.
type roster struct {
	db        *store.DB
	reloading sync.Mutex // held from reading to taking over

	mu      sync.RWMutex // guards members
	members map[string]hub.Member
}

func newRoster(ctx context.Context, db *store.DB) (*roster, error) {
	r := &roster{db: db}
	return r, r.reload(ctx)
}

// reload takes over what the database has. Of two at once the later reads later:
// or a revoked agent might be welcome again, and one that just enrolled refused.
func (r *roster) reload(ctx context.Context) error {
	r.reloading.Lock()
	defer r.reloading.Unlock()
	rows, err := r.db.Agents(ctx)
	if err != nil {
		return err
	}
	members := map[string]hub.Member{}
	for _, row := range rows {
		if row.Revoked.IsZero() {
			members[row.Name] = hub.Member{Scope: hub.Scope{Agent: row.Name, Domains: row.Domains}, Enrolment: row.Enrolment}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = members
	return nil
}

// Member implements hub.Roster.
func (r *roster) Member(name string) (hub.Member, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	m, ok := r.members[name]
	if !ok {
		return m, hub.ErrStranger
	}
	return m, nil
}

// Enrol implements hub.Roster.
func (r *roster) Enrol(ctx context.Context, name string, token [sha256.Size]byte) (hub.Member, error) {
	err := r.db.EnrolAgent(ctx, name, token[:], rand.Text(), time.Now())
	if errors.Is(err, store.ErrNotFound) {
		return hub.Member{}, hub.ErrStranger
	}
	if err != nil {
		return hub.Member{}, err
	}
	if err := r.reload(ctx); err != nil {
		return hub.Member{}, err
	}
	return r.Member(name)
}

// tokenLasts is how long a token for an enrolment is good.
const tokenLasts = time.Hour

// add lets an agent enrol with the token that it returns.
func (r *roster) add(ctx context.Context, name string, domains []string, ca *hub.CA, by string) (string, error) {
	token := hub.NewToken(name, ca)
	sum, now := sha256.Sum256(token.Secret), time.Now()
	if err := r.db.AddAgent(ctx, name, domains, sum[:], now, now.Add(tokenLasts), by); err != nil {
		return "", err
	}
	return token.String(), r.reload(ctx)
}

// checkDomains returns what an agent may speak of, in the form in which it is
// compared.
func checkDomains(domains []string) ([]string, error) {
	var all []string
	for _, d := range domains {
		d = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(d), "."))
		if d == "" || len(d) > 255 || strings.ContainsAny(d, "@ \t\n:/!") || strings.Contains(d, "*") && d != "*" {
			return nil, fmt.Errorf("%q is no domain: write example.com, or * for all", d)
		}
		all = append(all, d)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}
