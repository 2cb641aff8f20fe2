package dnsbl

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An Inquiry is what one list says about a subject that is not watched, asked
// once by [Watch.Inquire]. Its Judgement is Unknown where nobody can tell: the
// list cannot be believed, its budget did not suffice, or it said nothing usable.
type Inquiry struct {
	For     Purpose // as it was asked
	Subject Subject
	List    string // its name
	Title   string
	Judgement

	// Where the subject is the client of a login: what that is worth, in points
	// of a hundred, by the codes that say something about clients, and what those
	// mean. 0 where none does, as where a home user's address is not meant to
	// send mail.
	Client        int
	ClientMeaning string
}

// A Purpose says what an inquiry is for.
type Purpose uint8

// The purposes of inquiries.
const (
	ForClient    Purpose = 1 + iota // of a login
	ForNeighbour                    // of an address that is watched
)

var purposeTexts = [...]string{"", "client", "neighbour"}

// String returns "client" or "neighbour".
func (p Purpose) String() string { return purposeTexts[p] }

// Client returns what is asked about where addr is the client of a login: an
// IPv4 address itself, and of IPv6 the /64, of which a customer has a whole one
// and lists mostly have one entry.
func Client(addr netip.Addr) Subject { return network(addr, min(addr.Unmap().BitLen(), 64)) }

// Bounds of inquiries.
const (
	maxInquiries   = 1024      // that one list has waiting, and as many more that a test of the list is waited for
	inquiryWaits   = time.Hour // for a list's budget, or its health
	inquiriesShare = 0.1       // of a day's budget
)

// An inquiry is one on its way. It is in the queue of its list, then in its
// task, and then, if the list says listed, waits for the list's next test.
type inquiry struct {
	purpose Purpose
	subject Subject
	label   string
	since   time.Time // when it was asked for
	said    time.Time // when the list said listed
	j       Judgement
}

// Inquire has a list asked about s once, when it has nothing else to do, and
// reports whether it will be. What comes of it is in [Watch.Inquiries], within
// two hours or never. An inquiry takes nothing of the budget that the rest of
// the day will need for what is watched, and at most a tenth. That s is listed
// counts only once the list has passed a test that began after it said so.
func (w *Watch) Inquire(now time.Time, s Subject, list string, why Purpose) bool {
	w.tick(now)
	i := slices.IndexFunc(w.lists, func(l *watched) bool { return l.Name == list })
	if i < 0 {
		return false
	}
	l := w.lists[i]
	u := l.unit(s)
	label, err := u.label()
	if err != nil || !l.open || l.Kinds&s.Kind() == 0 || len(label)+1+len(l.zone) > maxName {
		return false
	}
	w.dropInquiries(l)
	if len(l.inquiries) >= maxInquiries || len(l.doubts) >= maxInquiries || l.health.isQuarantined() {
		return false
	}
	l.inquiries = append(l.inquiries, &inquiry{purpose: why, subject: s, label: label, since: w.now})
	return true
}

// Inquiries returns what came of inquiries since the last call.
func (w *Watch) Inquiries() []Inquiry {
	all := w.answered
	w.answered = nil
	return all
}

// answerInquiry notes what came of q; the zero Judgement says that nobody can tell.
func (w *Watch) answerInquiry(l *watched, q *inquiry, j Judgement) {
	a := Inquiry{For: q.purpose, Subject: q.subject, List: l.Name, Title: l.Title, Judgement: j}
	a.Client, a.ClientMeaning = l.client(j)
	w.answered = append(w.answered, a)
}

// client says what a judgement about the client of a login is worth.
func (l *List) client(j Judgement) (points int, meaning string) {
	if j.Verdict != Listed {
		return 0, ""
	}
	var meanings []string
	for _, addr := range j.Codes {
		_, codes := l.meaning(addr)
		for _, c := range codes {
			if c.Client > 0 {
				points, meanings = max(points, c.Client), append(meanings, c.Meaning)
			}
		}
	}
	slices.Sort(meanings)
	return points, strings.Join(slices.Compact(meanings), "; ")
}

// dropInquiries gives up what waited too long, the oldest first, or all while l
// is in quarantine.
func (w *Watch) dropInquiries(l *watched) {
	n := 0
	for n < len(l.inquiries) && (l.health.isQuarantined() || w.now.Sub(l.inquiries[n].since) > inquiryWaits) {
		w.answerInquiry(l, l.inquiries[n], Judgement{})
		n++
	}
	l.inquiries = slices.Delete(l.inquiries, 0, n)
}

// inquiriesAt returns when l may be asked an inquiry, now at the earliest.
func (l *watched) inquiriesAt(now time.Time) time.Time {
	return l.budget.inquiry(now, float64(l.demand)/1e9)
}

// askInquiry returns the next inquiry of l, false if there is none.
func (w *Watch) askInquiry(l *watched) (Task, bool) {
	w.dropInquiries(l)
	for len(l.inquiries) > 0 {
		q := l.inquiries[0]
		if !l.health.usable(q.subject.Kind()) {
			l.inquiries = slices.Delete(l.inquiries, 0, 1)
			w.answerInquiry(l, q, Judgement{})
			continue
		}
		if w.now.Before(l.inquiriesAt(w.now)) {
			return Task{}, false
		}
		l.inquiries = slices.Delete(l.inquiries, 0, 1)
		l.budget.take()
		l.budget.inquiries++
		return Task{
			Kind: Once, List: l.Name, Subject: q.subject, zone: l.zone, name: q.label + "." + l.zone, typ: TypeA, issued: w.now, on: l, inquiry: q,
		}, true
	}
	return Task{}, false
}

// takeInquiry takes the answer to an inquiry. That something is listed waits for
// the list's next test: a list that has begun to list
// everybody is found out before it counts.
func (w *Watch) takeInquiry(t Task, a Answer) {
	l, q := t.on, t.inquiry
	j := l.Judge(a)
	w.learnHealth(t, a, j)
	switch {
	case j.Verdict == Unknown || !l.health.usable(q.subject.Kind()):
		w.answerInquiry(l, q, Judgement{})
	case j.Verdict == Clean:
		w.answerInquiry(l, q, j)
	default:
		q.said, q.j = w.now, j
		l.doubts = append(l.doubts, q)
		l.testForInquiries(w.now)
	}
}

// testForInquiries has the next test be a full one, and soon, if the share of
// inquiries in the budget bears it.
func (l *watched) testForInquiries(now time.Time) {
	if soon := later(now, l.begun.Add(retestAfter)); soon.Before(l.nextTest) && l.inquiriesAt(now).Sub(now) < time.Minute {
		l.budget.inquiries += probesEstimate
		l.nextTest = soon
	}
	l.thorough = true
}

// settleInquiries has what l said count, if it passed a test that began
// afterwards, or not if it cannot be believed.
func (w *Watch) settleInquiries(l *watched) {
	w.dropInquiries(l)
	l.doubts = slices.DeleteFunc(l.doubts, func(q *inquiry) bool {
		switch usable := l.health.usable(q.subject.Kind()); {
		case !usable || w.now.Sub(q.said) > inquiryWaits:
			w.answerInquiry(l, q, Judgement{})
		case l.health.passed.After(q.said):
			w.answerInquiry(l, q, q.j)
		default:
			return false
		}
		return true
	})
}

// rewindInquiries leaves nothing that was in the future.
func (l *watched) rewindInquiries(now time.Time) {
	for _, q := range slices.Concat(l.inquiries, l.doubts) {
		q.since, q.said = sooner(q.since, now), sooner(q.said, now)
	}
}
