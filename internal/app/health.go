package app

import (
	"context"
	"maps"
	"sync"

	"github.com/vedetta-watch/vedetta/internal/web"
)

// A health collects what is wrong, by part. A part is well until somebody
// says otherwise.
type health struct {
	mode string

	mu    sync.Mutex // guards parts
	parts map[string]string
}

func (h *health) set(part string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parts[part] = "ok"
	if err != nil {
		h.parts[part] = err.Error()
	}
}

// Health implements web.Watch.
func (p *pipeline) Health(context.Context) web.Health {
	p.health.mu.Lock()
	defer p.health.mu.Unlock()
	h := web.Health{OK: true, Mode: p.health.mode, Version: Version(), Parts: maps.Clone(p.health.parts)}
	for _, state := range h.Parts {
		h.OK = h.OK && state == "ok"
	}
	return h
}
