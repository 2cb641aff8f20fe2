package detector

import (
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

// Clear ends the account's episode without learning from it: a hijack is over
// because its password was changed, say. What it did stays strange for the
// account, and bounces of it that still arrive are no evidence; a further
// hijack is a new episode.
func (d *Detector) Clear(name mailq.Account, at time.Time) {
	a := d.accounts[name]
	if a == nil {
		return
	}
	now := max(at.UnixNano(), a.last)
	d.advance(a, now)
	a.seldom().mercy.at = now
	a.rare.spent = nil
	a.rate.now, a.rate.peak = [gauges]float32{}, [gauges]float32{}
	a.series.clear()
	a.filled = 0
	a.settle()
	d.note(a, verdict{}, now)
}

// settle ends the episode and clears every chart.
func (a *account) settle() {
	a.nov.fast, a.nov.slow = chart{}, chart{}
	a.nov.count, a.nov.strangers = 0, 0
	a.spr.chart, a.rate.odd, a.like.chart, a.fail.chart, a.log.chart = chart{}, chart{}, chart{}, chart{}, chart{}
	if r := a.rare; r != nil {
		r.reply.chart, r.from.chart, r.scr.chart, r.with = chart{}, chart{}, chart{}, cohort{}
	}
	if a.in != nil {
		a.in.returned = chart{}
	}
	a.log.guessed, a.log.far = false, false
	a.ep = episode{}
}
