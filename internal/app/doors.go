package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
)

// A door is one of the ways in which mail servers ask the gate.
type door struct {
	kind  string // as the metrics name it: policy, milter, exim
	addrs []string
	server
}

// A server answers at a door.
type server interface {
	Serve(ctx context.Context, l net.Listener) error
	Stats() gate.Stats
}

// newDoors builds the doors that the configuration opens. One table is behind
// all of them.
func newDoors(cfg config.Config, table *gate.Table, dir *directory, seen func(gate.Request), log *slog.Logger) []door {
	c := cfg.Gate
	all := []door{
		{"policy", c.Listen, &gate.Policy{Table: table, Canonical: dir.Canonical, Seen: seen, Log: log, MaxConns: c.MaxConnections}},
		{"milter", c.Milter, &gate.Milter{
			Table: table, Canonical: dir.Canonical, Seen: seen, Log: log, MaxConns: c.MaxConnections, PolicyCharges: len(c.Listen) > 0,
			LocalWaits: cfg.Postfix.LocalAccess != "" && throttled(c) == gate.Hold,
		}},
		{"exim", c.Exim, &gate.Exim{Table: table, Canonical: dir.Canonical, Seen: seen, Log: log, MaxConns: c.MaxConnections}},
	}
	var doors []door
	for _, d := range all {
		if len(d.addrs) > 0 {
			doors = append(doors, d)
		}
	}
	return doors
}

// An openDoor is a door and one address at which it is open.
type openDoor struct {
	door
	net.Listener
}

// openDoors listens at every address, or at none.
func openDoors(doors []door) ([]openDoor, error) {
	var open []openDoor
	for _, d := range doors {
		for _, addr := range d.addrs {
			l, err := gate.Listen(addr, 0o666)
			if err != nil {
				closeDoors(open)
				return nil, fmt.Errorf("%s: %w", d.kind, err)
			}
			open = append(open, openDoor{d, l})
		}
	}
	return open, nil
}

func closeDoors(open []openDoor) {
	for _, o := range open {
		o.Close()
	}
}

// doorStats counts what was asked, by door.
func doorStats(doors []door, reg prometheus.Registerer) {
	for _, d := range doors {
		prometheus.WrapRegistererWith(prometheus.Labels{"gate": d.kind}, reg).MustRegister(newGateCollector(d.Stats))
	}
}
