package detector

import (
	"fmt"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// Those with the most points come first, each with what weighs most.
func TestTopEndangering(t *testing.T) {
	if top := (*ListingRisk)(nil).Top(riskStart, 3); len(top) > 0 {
		t.Errorf("nothing is watched: %+v", top)
	}
	r := newRiskRun(t, 0)
	r.see(0, trapMail("mallory@shop.test", trapHash))
	for range 3 {
		r.see(0, ended("mallory@shop.test", mailq.Bounced, mailq.Content))
		r.see(0, ended("alice@shop.test", mailq.Bounced, mailq.Content))
	}
	r.see(0, ended("bob@shop.test", mailq.Bounced, mailq.Content))
	r.see(0, ended("carol@shop.test", mailq.Deferred, mailq.AddressReputation)) // nobody's points
	said := func(n int, after time.Duration) (all string) {
		for _, e := range r.Top(riskStart.Add(after), n) {
			all += fmt.Sprintf("%s %.0f %s; ", e.Account, e.Points, e.Sign.Kind)
		}
		return all
	}
	want := "mallory@shop.test 58 " + rules.Traps + "; alice@shop.test 18 " + rules.Replies + "; "
	if got := said(2, 0); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := said(9, 24*time.Hour); got != "mallory@shop.test 4 "+rules.Traps+"; alice@shop.test 1 "+rules.Replies+"; " {
		t.Errorf("a day later: %s", got)
	}
}
