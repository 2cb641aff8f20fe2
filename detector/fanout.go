package detector

import (
	"fmt"
	"math"
	"math/bits"
)

// reach counts the different recipients of about the last hour, and
// remembers the most there ever were in one: who writes to a hundred customers
// every month may do so again. A blast to an account's own contacts shows in
// nothing else, so fan-out alone may slow an account down; it never stops it.
type reach struct {
	seen   [2][2]uint64 // by recipient; of this half hour and the one before
	half   uint32       // number of the half hour
	record float32      // most in an hour, halved in recordLife
	at     uint32       // of the record, in seconds
}

const (
	fanScale    = .5 // many recipients at once are more often honest than many messages
	fanSurprise = 5.0
	fanFew      = 25.0 // below so many recipients in an hour nothing is a blast
	fanOver     = 1.5  // nor below so many times the record
	fanFirst    = 4.0  // what being just above both says
	fanoutTop   = 9.5
	recordLife  = 180 * day // a month-end's is still most of one a month later
)

// to counts a recipient. It gives 0 if it is none other than before, and else
// for how many it stands: some of those that were not seen before look as if
// they had been, the more the more there were (Whang et al. 1990, linear
// counting).
func (r *reach) to(h uint64, now int64) float32 {
	half := uint32(now / (hour / 2))
	switch {
	case half == r.half+1:
		r.seen[1], r.seen[0] = r.seen[0], [2]uint64{}
	case half != r.half:
		r.seen = [2][2]uint64{}
	}
	r.half = half
	bit := h * 0x9e3779b97f4a7c15 >> 57
	word, mask := bit>>6, uint64(1)<<(bit&63)
	either := [2]uint64{r.seen[0][0] | r.seen[1][0], r.seen[0][1] | r.seen[1][1]}
	r.seen[0][word] |= mask
	if either[word]&mask != 0 {
		return 0
	}
	return 128 / float32(128-bits.OnesCount64(either[0])-bits.OnesCount64(either[1]))
}

// reached counts a recipient of the account, and says for how many it stands
// that none of about the last hour was.
func (r *rate) reached(h uint64, now int64) float32 {
	others := r.reach.to(h, now)
	if others > 0 {
		r.now[reachPerHour]++
		r.peak[reachPerHour] = max(r.peak[reachPerHour], r.now[reachPerHour])
	}
	return others
}

// most is the record as it counts today.
func (r *reach) most(now int64) float32 {
	return r.record * float32(math.Exp2(-float64(since(r.at, now))/float64(recordLife)))
}

// keep takes a day's peak into the record.
func (r *reach) keep(peak float32, now int64) {
	r.record, r.at = max(r.most(now), peak), seconds(now)
}

// fanout is what the number of recipients in an hour says. Who has written to many
// colleagues at once has not written to as many strangers: of a person's account those are
// measured by their own record.
func (a *account) fanout(norms *[gauges]norm, now int64) float32 {
	return max(a.rate.fanout(norms, now), a.strangersAtOnce(now))
}

func (a *account) strangersAtOnce(now int64) float32 {
	if a.class != people || a.surely() < 0 || a.rate.days < seriesYoung {
		return 0 // whose strangers novelty counts, see account.strangers
	}
	return blast(a.series.now[strangersHour], a.series.most(strangersHour, now))
}

// blast is what so many recipients in an hour say where there never were more than a
// record.
func blast(c, record float32) float32 {
	limit := max(fanFew, fanOver*record)
	if c <= limit {
		return 0
	}
	return min(fanFirst+3*log(c/limit)/log(1.5), fanoutTop)
}

// fanout is what the number of recipients in an hour says.
func (r *rate) fanout(norms *[gauges]norm, now int64) float32 {
	c := r.now[reachPerHour]
	if c <= min(float32(r.quiet[reachPerHour]), fanFew) {
		return 0
	}
	s := min(fanScale*surprise(c, r.habit[reachPerHour], r.days, &norms[reachPerHour]), fanSurprise)
	return max(s, blast(c, r.reach.most(now)))
}

func (a *account) fanoutText(f *fleet) string {
	if a.strangersAtOnce(a.last) > a.rate.fanout(&f.norms[a.class], a.last) {
		return fmt.Sprintf("about %.0f recipients never written to before in an hour; the most so far were %.0f",
			a.series.now[strangersHour], a.series.most(strangersHour, a.last))
	}
	usual, record := a.rate.usual(reachPerHour, &f.norms[a.class]), int(math.Round(float64(a.rate.reach.record)))
	text := fmt.Sprintf("about %d different recipients in an hour; this account's usual busiest hour has %d", int(math.Round(float64(a.rate.now[reachPerHour]))), usual)
	if record > usual { // of a new account what is usual is a guess
		text += fmt.Sprintf(", its busiest of all %d", record)
	}
	return text
}
