package detector

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/vedetta-watch/vedetta/rules"
)

// A family is one kind of evidence.
type family uint8

const (
	familyNovelty family = iota
	familySpread
	familyRate
	familyFanout
	familySeries
	familyOneway
	familyHours
	familyFailures
	familyReturned
	familyFleet
	familyReplies
	familyLogins
	familySender
	familyLikeness
	familyScript
	families
)

// kinds names the families as findings do, and says to which independent
// group each belongs: two families of one group are one oddity told twice.
var kinds = [families]struct {
	name  string
	group group
}{
	familyNovelty:  {"novelty", groupWhom},
	familySpread:   {"domains", groupWhom},
	familyRate:     {"rate", groupPace},
	familyFanout:   {"fanout", groupPace},
	familySeries:   {"series", groupPace},
	familyOneway:   {rules.Oneway, groupPace},
	familyHours:    {"hours", groupPace},
	familyFailures: {"failures", groupFailures},
	familyReturned: {rules.Returned, groupFailures},
	familyFleet:    {rules.Fleet, groupFleet},
	familyReplies:  {"replies", groupReplies},
	familyLogins:   {"logins", groupLogins},
	familySender:   {"sender", groupSender},
	familyLikeness: {"likeness", groupContent},
	familyScript:   {"script", groupScript},
}

// A group is a set of families that an honest reason would move together.
type group uint8

const (
	groupWhom group = iota
	groupPace
	groupFailures
	groupFleet
	groupReplies
	groupLogins
	groupSender
	groupContent
	groupScript
	groups
)

// A hardRule convicts by itself.
type hardRule uint8

const (
	hardNone hardRule = iota
	hardManyNetworks
	hardManyCountries
)

var hardNames = [...]string{
	hardNone:          "",
	hardManyNetworks:  "mail from more than 20 networks within 24 hours",
	hardManyCountries: "mail from 5 or more countries within 24 hours",
}

func (a *account) fire(r hardRule, now int64) {
	if r == hardNone || a.ep.hard == r {
		return
	}
	a.begin(nil, now)
	a.ep.hard, a.ep.rose = r, true
}

// A verdict is all evidence taken together.
type verdict struct {
	score    float32
	families int
	share    [families]float32 // what each family contributes
	moved    float32           // by the calibration
}

// fuse takes all evidence together. It is the only place that does: the
// score is the sum of what the groups say, as natural log-likelihoods; of
// families that belong together the strongest speaks.
func (a *account) fuse() verdict { return fuse(&a.ep.speak, a.knownFor()) }

// knownFor is of how many messages the account is known, as far as that says what its
// mail is like: in its first two weeks a new mailbox shows some of its days only, and the
// first circular of a school is yet to come. Of one that was there before the
// installation was, nobody can tell.
func (a *account) knownFor() float32 {
	if a.joined && since(a.first, a.last) < newFor {
		return min(a.nov.before.age, newAge)
	}
	return a.nov.before.age
}

// fuse is that of an account of which so many messages were known.
func fuse(speak *[families]said, age float32) verdict {
	var v verdict
	for f, s := range speak {
		v.share[f] = s.score()
	}
	v.share[familySeries] = 0
	v.share[familySpread] = min(v.share[familySpread], v.share[familyNovelty]/2)
	if v.share[familyRate] >= v.share[familyFanout] {
		v.share[familyFanout] = 0
	} else {
		v.share[familyRate] = 0
	}
	if v.share[familyNovelty] < speaks {
		v.share[familyLikeness], v.share[familyHours], v.share[familyOneway], v.share[familyReturned] = 0, 0, 0, 0
	}
	v.share[familyReturned] = min(v.share[familyReturned], max(returnedTop-v.share[familyFailures], 0))
	v.limit(paceTop, groupPace)
	v.limit(strangerTop+strangerAge*age, groupWhom, groupPace, groupContent)
	var by [groups]float32
	for f, s := range v.share {
		by[kinds[f].group] += s
	}
	for _, s := range by {
		v.score += s
	}
	if more := speak[familySeries].score() - v.score; more > 0 { // it lifts to what it says, and no further
		v.share[familySeries], by[groupPace], v.score = more, by[groupPace]+more, v.score+more
	}
	for _, s := range by {
		if s >= speaks {
			v.families++
		}
	}
	return v
}

// foreign is the evidence of somebody else's hand, as rules have it: what no mailing of
// the owner's own shows.
func (v *verdict) foreign() float32 {
	s := &v.share
	return s[familyLogins] + s[familySender] + s[familyScript] + v.complained()
}

// complained is the part of it that comes from whom the mail went to.
func (v *verdict) complained() float32 {
	return v.share[familyReplies] + max(0, v.share[familyFailures]-ownFailures)
}

// limit takes so much from the families of these groups, the first ones
// first, that together they say no more than top.
func (v *verdict) limit(top float32, of ...group) {
	for f, s := range v.share {
		if s != 0 && slices.Contains(of, kinds[f].group) {
			top -= s
		}
	}
	if top >= 0 {
		return
	}
	for _, g := range of {
		for f := range v.share {
			if kinds[f].group == g && top < 0 {
				less := min(v.share[f], -top)
				v.share[f] -= less
				top += less
			}
		}
	}
}

const (
	speaks      = 2.0 // a family speaks from here on
	ownFailures = 5.0 // what dead addresses of the owner's own list may say
	paceTop     = 9.5

	// Of an account with hardly any past, whom it writes to, how fast and
	// with what likeness says little: it may be a newsletter's first. What they say together is
	// limited by how many messages of it are known.
	strangerTop = 9.5
	strangerAge = 2.7
	newFor      = 14 * day
	newAge      = .8 // so that they come to less than would hold it
)

// finding makes a finding of the account's state.
func (d *Detector) finding(a *account, v verdict, now int64) rules.Finding {
	rule := "hijacked-mailbox"
	kind := a.name.Kind()
	if kind == "script" || kind == "user" || kind == "uid" {
		rule = "abused-script"
	}
	since := time.Unix(0, a.ep.onset).UTC()
	return rules.Finding{
		ID:       rules.FindingID(rule, string(a.name), since),
		Rule:     rule,
		Subject:  string(a.name),
		Time:     time.Unix(0, now).UTC(),
		Since:    since,
		Score:    round(v.score),
		Families: v.families,
		Hard:     hardNames[a.ep.hard],
		Class:    kind,
		Shared:   a.shared,
		Messages: int(a.ep.msgs),
		Rcpts:    int(a.ep.rcpts),
		Evidence: d.evidence(a, v),
	}
}

// evidence puts what each family says into words, the weightiest first.
func (d *Detector) evidence(a *account, v verdict) []rules.Evidence {
	var all []rules.Evidence
	for f, s := range v.share {
		if s < .05 {
			continue
		}
		all = append(all, rules.Evidence{Kind: kinds[f].name, Score: round(s), Text: d.words(a, family(f))})
	}
	if max(v.moved, -v.moved) >= .05 {
		text := fmt.Sprintf("moved, so that %.3g of 100,000 ordinary mailbox-days here come to a hold", d.cfg.WrongStops)
		all = append(all, rules.Evidence{Kind: rules.Calibration, Score: round(v.moved), Text: text})
	}
	slices.SortStableFunc(all, func(x, y rules.Evidence) int { return cmp.Compare(y.Score, x.Score) })
	return all
}

func (d *Detector) words(a *account, f family) string {
	switch f {
	case familyNovelty:
		return a.noveltyText()
	case familySpread:
		return a.spreadText()
	case familyRate:
		return a.rateText(&d.fleet)
	case familyFanout:
		return a.fanoutText(&d.fleet)
	case familySeries:
		return a.seriesText()
	case familyHours:
		return "at hours when this account hardly ever sends"
	case familyOneway:
		return a.onewayText()
	case familyReturned:
		return a.returnedText()
	case familyFleet:
		return a.cohortText()
	case familyFailures:
		return a.failuresText()
	case familyReplies:
		return a.repliesText()
	case familyLogins:
		return a.loginsText()
	case familySender:
		return a.senderText()
	case familyLikeness:
		return a.likenessText()
	case familyScript:
		return a.scriptText()
	}
	return ""
}

func round(x float32) float64 { return math.Round(float64(x)*100) / 100 }

// counted is a number of things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
