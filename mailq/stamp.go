package mailq

import (
	"bytes"
	"time"
)

// Stamps reads the time at the head of log lines. One Stamps reads one log, or
// several merged by time: what a line leaves out (year, zone, which of the two
// autumn hours) is settled by the lines before it.
//
// The zero value reads times without a zone as local ones.
type Stamps struct {
	Location *time.Location // of stamps without a zone; nil is local time
	Now      time.Time      // reference for the first year; zero is the present

	prev int64 // seconds of the last stamp, 0 before the first

	// The last stamp read. Most lines share their second with the one before.
	text  [maxStamp]byte
	width int
	shape stampShape
	sec   int64
	nsec  int64

	// The last hour without a zone, and the second at which it began.
	hour      [13]byte
	hourWidth int
	hourStart int64

	// The last date with a zone, as days since 1970.
	date     [10]byte
	dateDays int64
}

// A stampShape says how a line began, and so what may follow.
type stampShape uint8

const (
	noStamp     stampShape = iota
	traditional            // Nov 22 05:28:20, no year, no zone
	rfc3339                // 2026-11-22T05:28:20.123456+00:00
	spaced                 // 2026-11-22 05:28:20[.123][ +0200], Exim and Dovecot
)

const (
	maxStamp = 40
	day      = 24 * 60 * 60

	// disorder is how far the lines of one log may go back in time without
	// meaning anything: processes write at the same moment.
	disorder = 30
)

// LineTime returns the time at the head of line, in UTC.
func (s *Stamps) LineTime(line []byte) (time.Time, bool) {
	_, shape := s.read(line)
	return s.time(), shape != noStamp
}

// time is the last stamp read.
func (s *Stamps) time() time.Time { return time.Unix(s.sec, s.nsec).UTC() }

// read takes the stamp and the space after it off line.
func (s *Stamps) read(line []byte) (rest []byte, shape stampShape) {
	if s.width > 0 && len(line) > s.width && bytes.Equal(line[:s.width], s.text[:s.width]) {
		return line[s.width:], s.shape
	}
	if len(line) < len("Nov 22 05:28:20 x") {
		return line, noStamp
	}
	width := 0
	switch {
	case line[0] > '9':
		shape, width = traditional, s.readTraditional(line)
	case line[10] == 'T':
		shape, width = rfc3339, s.readRFC3339(line)
	default:
		shape, width = spaced, s.readSpaced(line)
	}
	if width == 0 {
		return line, noStamp
	}
	s.prev = s.sec
	s.width, s.shape = 0, shape
	if width <= maxStamp {
		s.width = copy(s.text[:], line[:width])
	}
	return line[width:], shape
}

// readTraditional reads "Nov 22 05:28:20 ", the day padded with a space or a
// zero, and returns how many bytes it took; 0 is no stamp.
func (s *Stamps) readTraditional(b []byte) int {
	const width = len("Nov 22 05:28:20 ")
	clock, ok := clockOf(b[7:15])
	if !ok || b[15] != ' ' {
		return 0
	}
	if s.sameHour(b[:9]) {
		s.sec, s.nsec = s.hourStart+clock%3600, 0
		return width
	}
	month := monthOf(b)
	d := int64(b[5]) - '0'
	if b[4] != ' ' {
		d += (int64(b[4]) - '0') * 10
	}
	if month == 0 || b[3] != ' ' || b[6] != ' ' || d < 1 || d > 31 {
		return 0
	}
	s.nsec = 0
	year := s.year(month, d, clock)
	s.setLocal(daysOf(year, month, d)*day+clock, b[:9])
	return width
}

// readSpaced reads "2026-11-22 05:28:20", a fraction and a zone if there are.
func (s *Stamps) readSpaced(b []byte) int {
	if len(b) < 20 || b[10] != ' ' {
		return 0
	}
	clock, ok := clockOf(b[11:19])
	if !ok {
		return 0
	}
	nsec, width := fraction(b, 19)
	zone, zoneWidth, hasZone := zoneOf(b, width+1)
	if width >= len(b) || b[width] != ' ' {
		return 0
	}
	if hasZone && width+1+zoneWidth < len(b) && b[width+1+zoneWidth] == ' ' {
		days, ok := s.days(b)
		if !ok {
			return 0
		}
		s.sec, s.nsec = days*day+clock-zone, nsec
		return width + zoneWidth + 2
	}
	if s.sameHour(b[:13]) {
		s.sec, s.nsec = s.hourStart+clock%3600, nsec
		return width + 1
	}
	days, ok := s.days(b)
	if !ok {
		return 0
	}
	s.nsec = nsec
	s.setLocal(days*day+clock, b[:13])
	return width + 1
}

// readRFC3339 reads "2026-11-22T05:28:20.123456+00:00 ".
func (s *Stamps) readRFC3339(b []byte) int {
	if len(b) < len("2026-11-22T05:28:20Z ") {
		return 0
	}
	clock, ok := clockOf(b[11:19])
	if !ok {
		return 0
	}
	nsec, width := fraction(b, 19)
	zone, zoneWidth, ok := zoneOf(b, width)
	width += zoneWidth
	if !ok || width >= len(b) || b[width] != ' ' {
		return 0
	}
	days, ok := s.days(b)
	if !ok {
		return 0
	}
	s.sec, s.nsec = days*day+clock-zone, nsec
	return width + 1
}

// days reads the date at the head of b, remembering the last one.
func (s *Stamps) days(b []byte) (int64, bool) {
	if s.dateDays != 0 && bytes.Equal(b[:10], s.date[:]) {
		return s.dateDays, true
	}
	year, ok1 := digits(b[0:4])
	month, ok2 := digits(b[5:7])
	d, ok3 := digits(b[8:10])
	if !ok1 || !ok2 || !ok3 || b[4] != '-' || b[7] != '-' || year < 1970 || month < 1 || month > 12 || d < 1 || d > 31 {
		return 0, false
	}
	copy(s.date[:], b)
	s.dateDays = daysOf(year, month, d)
	return s.dateDays, true
}

// year finds the year of a stamp that has none: near the line before, and for
// the first line the latest that is at most a day ahead of the reference.
func (s *Stamps) year(month, d, clock int64) int64 {
	ref, ahead := s.prev, int64(183*day)
	if ref == 0 {
		if s.Now.IsZero() {
			s.Now = time.Now()
		}
		ref, ahead = s.Now.Unix(), day
	}
	year := int64(time.Unix(ref, 0).UTC().Year()) + 1
	for range 9 { // a 29 February may be eight years back
		if daysOf(year, month, d)*day+clock <= ref+ahead && (month != 2 || d != 29 || leap(year)) {
			break
		}
		year--
	}
	return year
}

// setLocal takes wall, seconds since 1970 as a clock on the wall would count
// them, for the time of the stamp. head is the stamp up to its hour.
//
// An hour that occurs twice in autumn goes on from the line before; one that
// does not occur in spring is read with the zone that had just ended.
func (s *Stamps) setLocal(wall int64, head []byte) {
	before, after := s.offset(wall-day), s.offset(wall+day)
	if before == after {
		s.sec = wall - before
		s.hourWidth = copy(s.hour[:], head)
		s.hourStart = s.sec - wall%3600
		return
	}
	s.hourWidth = 0
	first, second := wall-before, wall-after
	firstOK, secondOK := s.offset(first) == before, s.offset(second) == after
	switch {
	case firstOK && secondOK && second > first:
		s.sec = s.choose(first, second)
	case secondOK:
		s.sec = second
	default:
		s.sec = first
	}
}

// choose says which of an hour's two occurrences a line belongs to.
func (s *Stamps) choose(first, second int64) int64 {
	if s.prev != 0 {
		if first >= s.prev-disorder {
			return first
		}
		return second
	}
	// The first line: if it was written just now, the reference knows.
	if now := s.Now.Unix(); !s.Now.IsZero() && now >= second-disorder && now < second+3600 {
		return second
	}
	return first
}

func (s *Stamps) sameHour(head []byte) bool {
	return s.hourWidth == len(head) && bytes.Equal(head, s.hour[:s.hourWidth])
}

// offset is the zone's distance from UTC at an instant, in seconds.
func (s *Stamps) offset(at int64) int64 {
	loc := s.Location
	if loc == nil {
		loc = time.Local
	}
	_, offset := time.Unix(at, 0).In(loc).Zone()
	return int64(offset)
}

// fraction reads ".123456" at b[at:] and returns where it ends.
func fraction(b []byte, at int) (nsec int64, end int) {
	if at >= len(b) || (b[at] != '.' && b[at] != ',') {
		return 0, at
	}
	scale := int64(100_000_000)
	for at++; at < len(b) && b[at] >= '0' && b[at] <= '9'; at++ {
		nsec += int64(b[at]-'0') * scale
		scale /= 10
	}
	return nsec, at
}

// zoneOf reads "Z", "+0200" or "+02:00" at b[at:], in seconds east of UTC.
func zoneOf(b []byte, at int) (seconds int64, width int, ok bool) {
	if at >= len(b) {
		return 0, 0, false
	}
	z := b[at:]
	if z[0] == 'Z' {
		return 0, 1, true
	}
	if (z[0] != '+' && z[0] != '-') || len(z) < 6 {
		return 0, 0, false
	}
	width = 5
	minutes := z[3:5]
	if z[3] == ':' {
		minutes, width = z[4:6], 6
	}
	h, ok1 := digits(z[1:3])
	m, ok2 := digits(minutes)
	seconds = h*3600 + m*60
	if z[0] == '-' {
		seconds = -seconds
	}
	return seconds, width, ok1 && ok2
}

// clockOf reads "05:28:20" as seconds of the day; a leap second is allowed.
func clockOf(b []byte) (int64, bool) {
	_ = b[7]
	h := int64(b[0]-'0')*10 + int64(b[1]-'0')
	m := int64(b[3]-'0')*10 + int64(b[4]-'0')
	s := int64(b[6]-'0')*10 + int64(b[7]-'0')
	if b[2] != ':' || b[5] != ':' || b[1]-'0' > 9 || b[4]-'0' > 9 || b[7]-'0' > 9 || h > 23 || m > 59 || s > 60 {
		return 0, false
	}
	return h*3600 + m*60 + s, true
}

// digits reads a number that has nothing but digits.
func digits(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// monthOf reads an English month's three letters, 0 if it is none.
func monthOf(b []byte) int64 {
	switch string(b[:3]) {
	case "Jan":
		return 1
	case "Feb":
		return 2
	case "Mar":
		return 3
	case "Apr":
		return 4
	case "May":
		return 5
	case "Jun":
		return 6
	case "Jul":
		return 7
	case "Aug":
		return 8
	case "Sep":
		return 9
	case "Oct":
		return 10
	case "Nov":
		return 11
	case "Dec":
		return 12
	}
	return 0
}

// daysOf counts the days from 1970-01-01 to a date of the Gregorian calendar.
func daysOf(year, month, d int64) int64 {
	if month <= 2 {
		year--
	}
	era := year / 400
	yearOfEra := year - era*400
	dayOfYear := (153*((month+9)%12)+2)/5 + d - 1
	dayOfEra := yearOfEra*365 + yearOfEra/4 - yearOfEra/100 + dayOfYear
	return era*146097 + dayOfEra - 719468
}

func leap(year int64) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }
