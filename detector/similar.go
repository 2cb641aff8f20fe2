package detector

// likeness watches messages that resemble each other: the same subject but
// for numbers and names in it, or nearly the same size. A template sent to
// many is ordinary for newsletters; it speaks only beside novelty,
// and only as far as the account's own mail is not like that.
type likeness struct {
	chart
	marks [4]uint32 // of the latest messages, the latest first
	own   share
}

const (
	spamLike    = .75
	likeStep    = .5
	likenessTop = 3.0
)

// resembles takes the size and subject of a submitted message.
func (d *Detector) resembles(a *account, size int, subject string, now int64) {
	l := &a.like
	if size == 0 && subject == "" {
		return
	}
	mark := markOf(size, subject)
	like := l.has(mark)
	if !like {
		d.sharesText(a, mark, now)
	}
	prior := min(max(d.fleet.same.mean(.2, 50), .02), .98)
	p := min(max(l.own.mean(prior, 6), .02), .98)
	if a.open() {
		x := log((1 - spamLike) / (1 - p))
		if like {
			x = log(spamLike / p)
		}
		l.add(min(max(x, -1), likeStep), likenessTop, now)
		a.say(familyLikeness, min(l.s, likenessTop*(1-p)))
	}
	if a.ep.top < d.cfg.Floor {
		l.own.add(like, 1)
		l.own.limit(100)
		d.fleet.same.add(like, 1)
		d.fleet.same.limit(5000)
	}
}

// A message's mark is its subject's template, or its size where the log has
// no subject.
const subjectMark = 1 << 31

func markOf(size int, subject string) uint32 {
	if subject != "" {
		return template(subject) | subjectMark
	}
	return uint32(min(max(size, 0), subjectMark-1))
}

// has reports whether one of the latest messages is like this one, and
// remembers this one.
func (l *likeness) has(mark uint32) bool {
	found := false
	for _, m := range l.marks {
		switch {
		case m == 0 || (m^mark)&subjectMark != 0:
		case mark&subjectMark != 0:
			found = found || m == mark
		default:
			found = found || max(m, mark)-min(m, mark) <= mark/100+4
		}
	}
	copy(l.marks[1:], l.marks[:])
	l.marks[0] = mark
	return found
}

// template hashes a subject without what a macro varies: digits, and the
// difference between upper and lower case.
func template(subject string) uint32 {
	h := uint64(14695981039346656037)
	for i := range len(subject) {
		c := subject[i]
		switch {
		case c >= '0' && c <= '9', c == ' ':
			continue
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		h = (h ^ uint64(c)) * 1099511628211
	}
	return uint32(h ^ h>>32)
}

func (a *account) likenessText() string {
	return "messages that look alike, one after the other, unlike this account's usual mail"
}
