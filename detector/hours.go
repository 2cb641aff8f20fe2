package detector

// clock is when an account sends: counts by hour of the day and by day of
// the week, each halved when one of them is full. The hours are the
// server's (UTC); summer time moves them by one, so neighbours count too.
type clock struct {
	hour [24]uint8
	week [7]uint8
}

// hoursStep is the most that one message at an unusual hour says.
const (
	hoursStep  = .3
	hoursTop   = 1.5
	hoursDays  = 5  // before so many days are known, …
	hoursYoung = .8 // … unusual hours say at most this
)

func slots(now int64) (h, wd int) {
	return int(now / hour % 24), int((now/day + 4) % 7) // 1970-01-01 was a Thursday
}

// learn counts a message sent at now.
func (c *clock) learn(now int64) {
	h, wd := slots(now)
	bump(c.hour[:], h)
	bump(c.week[:], wd)
}

func bump(counts []uint8, i int) {
	counts[i]++
	if counts[i] == 255 {
		for j := range counts {
			counts[j] /= 2
		}
	}
}

// odd is what a message at now says: more than zero when the account hardly
// ever sends around that hour, or on that day of the week.
func (c *clock) odd(now int64) float32 {
	h, wd := slots(now)
	total, days := sum(c.hour[:]), sum(c.week[:])
	around := float32(c.hour[h]) + float32(c.hour[(h+1)%24]) + float32(c.hour[(h+23)%24])
	byHour := log((3. / 24) / ((around + 1) / (total + 8)))
	byDay := log((1. / 7) / ((float32(c.week[wd]) + 1) / (days + 7)))
	return min(max(byHour, byDay, 0), 2) * hoursStep / 2
}

// share is which part of a day's messages goes out in an hour like that of now; on a
// day of the week on which the account sends little it is the less.
func (c *clock) share(now int64) float32 {
	h, wd := slots(now)
	around := (float32(c.hour[(h+23)%24]) + 2*float32(c.hour[h]) + float32(c.hour[(h+1)%24])) / 4
	share := around / max(sum(c.hour[:]), 1)
	return share * min(7*float32(c.week[wd])/max(sum(c.week[:]), 1), 1)
}

func sum(counts []uint8) (all float32) {
	for _, n := range counts {
		all += float32(n)
	}
	return all
}
