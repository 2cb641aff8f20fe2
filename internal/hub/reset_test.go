package hub

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
)

// Only the agent that is asked learns it; that it is done, everybody does whose
// account it is.
func TestResetIsAskedOfOneAgent(t *testing.T) {
	w := newWorld(t)
	type said struct {
		agent  string
		report ResetReport
	}
	heard := make(chan said, 10)
	w.server.ResetDone = func(_ context.Context, agent string, r ResetReport) error { heard <- said{agent, r}; return nil }
	orders := map[string]chan Reset{}
	clients := map[string]*Client{}
	for agent, domain := range map[string]string{"mx1": "shop.test", "mx2": "shop.test", "mx3": "blog.test"} {
		told, c := make(chan Reset, 100), w.agent(agent, domain)
		c.Resets = agent == "mx1"
		orders[agent], clients[agent] = told, c
		go func() {
			_ = c.Orders(t.Context(), func(change Change) error {
				for _, o := range change.Set {
					told <- o.Reset
				}
				return nil
			})
		}()
	}
	b := w.server.Board
	if b.Reset("alice@shop.test", Reset{ID: "r1", Agent: "mx1"}) {
		t.Error("asked about nobody who is blocked")
	}
	b.Set(block("alice@shop.test"), "no")
	<-orders["mx1"]
	<-orders["mx2"]
	b.Reset("alice@shop.test", Reset{ID: "r1", Agent: "mx1"})
	if got := <-orders["mx1"]; got != (Reset{ID: "r1"}) {
		t.Errorf("mx1 is told %+v", got)
	}
	if got := <-orders["mx2"]; got != (Reset{}) {
		t.Errorf("mx2 is told %+v", got)
	}
	if err := clients["mx1"].ResetDone(t.Context(), ResetReport{ID: "r1", OK: true, Changed: true, Detail: "file\x1b[2J " + strings.Repeat("x", 2000)}); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got.agent != "mx1" || !got.report.OK || len(got.report.Detail) > maxDetail || strings.Contains(got.report.Detail, "\x1b") {
		t.Errorf("heard %+v", got)
	}
	b.Reset("alice@shop.test", Reset{ID: "r1", Done: true})
	b.Set(block("alice@shop.test"), "no, and not any more") // keeps it
	for _, agent := range []string{"mx1", "mx2"} {
		got := <-orders[agent]
		for len(orders[agent]) > 0 {
			got = <-orders[agent]
		}
		if got != (Reset{ID: "r1", Done: true}) {
			t.Errorf("%s is told %+v", agent, got)
		}
	}
	if len(orders["mx3"]) > 0 {
		t.Error("mx3 is told of another's account")
	}
	for _, p := range w.server.Presences() {
		if p.Resets != (p.Agent == "mx1") {
			t.Errorf("%s: can reset %v", p.Agent, p.Resets)
		}
	}
	b.Remove("alice@shop.test")
	b.Set(block("alice@shop.test"), "no") // anew
	if c, _, _ := b.Since(0, true, everybody); c.Set[0].Reset != (Reset{}) {
		t.Errorf("a new block has the reset of the old one: %+v", c.Set[0])
	}
}

func TestReportsOfResetsAreBounded(t *testing.T) {
	w := newWorld(t)
	c := w.agent("mx1", "shop.test")
	w.server.ResetDone = func(context.Context, string, ResetReport) error { t.Error("heard"); return nil }
	for name, body := range map[string]string{"empty": "", "text": "hello", "oversized": `{"detail":"` + strings.Repeat("x", maxReport) + `"}`, "another type": `{"ok":3}`} {
		var refused *Refused
		if _, err := c.post(t.Context(), "/v1/resets", []byte(body), new(struct{})); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}
