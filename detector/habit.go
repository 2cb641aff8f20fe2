package detector

import "math"

// A share is how often something happens, as decayed counts.
type share struct{ hits, of float32 }

// add counts one more observation of weight w.
func (s *share) add(hit bool, w float32) {
	if hit {
		s.hits += w
	}
	s.of += w
}

// limit keeps the memory to the latest n or so observations.
func (s *share) limit(n float32) {
	if s.of > n {
		s.hits *= n / s.of
		s.of = n
	}
}

// mean is the posterior mean under a Beta prior of mean prior worth k
// observations.
func (s *share) mean(prior, k float32) float32 { return (k*prior + s.hits) / (k + s.of) }

// A habit is what an account's days are like in one respect: mean and
// variance of the logarithm of each day's peak.
type habit struct{ mean, vari float32 }

// learn takes one more day's peak, as its logarithm y; n is how many days were
// learnt before.
func (h *habit) learn(y, n float32) {
	w := 1 / (n + 1)
	d := y - h.mean
	h.mean += w * d
	h.vari += w * (d*d*(1-w) - h.vari)
}

// A norm is what the habits of a kind of account are like: the prior of
// those that are not known yet.
type norm struct {
	mean    float32 // of the logarithm of a day's peak
	within  float32 // variance of one account's days
	between float32 // variance of the accounts' means
	days    float32
}

// learn takes one account's day: its peak, as its logarithm y, and the account's own
// mean before it.
func (p *norm) learn(y float32, h habit, n float32) {
	w := 1 / (min(p.days, 5000) + 200)
	p.days++
	d := y - p.mean
	p.mean += w * d
	p.between += w * (d*d*.6 - p.between)
	if n >= 5 {
		e := y - h.mean
		p.within += w * (e*e*n/(n+1) - p.within)
	}
}

// Weights of the prior against an account's own days.
const (
	meanDays = 2.0 // the prior mean is worth this many days
	variMin  = .2  // no account is more regular than this
	variDays = 8.0 // the prior variance is worth this many
)

// surprise is how much less likely a day with a peak of at least c is for
// the account than for a hijacked one: the logarithm of the inverse of a
// Student tail, less what a hijacked account would be surprised by itself.
// It is zero for anything ordinary.
func surprise(c float32, h habit, n float32, p *norm) float32 {
	mean, vari, dof := expected(h, n, p)
	z := log(max(c, 1)) - mean
	if z <= 0 {
		return 0
	}
	tail := (dof + 1) / 2 * float32(math.Log1p(float64(z*z/(vari*dof))))
	return max(0, tail-surpriseFree)
}

// expected is the predictive distribution of the logarithm of a day's peak:
// mean, variance and degrees of freedom.
func expected(h habit, n float32, p *norm) (mean, vari, dof float32) {
	mean = (meanDays*p.mean + n*h.mean) / (meanDays + n)
	vari = (variDays*p.within+n*h.vari)/(variDays+n) + p.between/(1+n)
	return mean, max(vari, variMin), variDays + min(n, 12)
}

// unsurprising are the counts up to which [surprise] is zero, in whole numbers.
func unsurprising(habits *[gauges]habit, n float32, norms *[gauges]norm) (counts [gauges]uint16) {
	_, _, dof := expected(habits[0], n, &norms[0]) // the same for all
	wide := math.Expm1(2*float64(surpriseFree)/float64(dof+1)) * float64(dof)
	for g := range gauges {
		mean, vari, _ := expected(habits[g], n, &norms[g])
		counts[g] = uint16(min(math.Exp(float64(mean)+math.Sqrt(wide*float64(vari))), math.MaxUint16))
	}
	return counts
}

// peakLog is the logarithm of a day's peak.
func peakLog(peak float32) float32 { return log(max(peak, 1)) }

// surpriseFree is the part of a surprise that every account has now and then.
const surpriseFree = .6
