package mailq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	defaultSample  = 5000 // messages looked at: a share is then right within 1.4 points
	defaultTop     = 50   // entries of a list
	headBytes      = 4 << 10
	namesAtOnce    = 1024
	maxHashDepth   = 4
	maxHeadDomains = 16  // of one message
	maxAddress     = 320 // bytes of an address that are looked at
)

// A QueueSample is one look at a mail queue. How many messages wait where is
// counted; whose they are and where they go is found from a random sample of
// them, and Exact says that it was all of them.
type QueueSample struct {
	Time     time.Time `json:"time"`
	Host     string    `json:"host,omitempty"`
	Total    int       `json:"total"`
	Active   int       `json:"active"`   // being delivered (Postfix)
	Incoming int       `json:"incoming"` // not yet looked at by the server, maildrop included (Postfix)
	Deferred int       `json:"deferred"` // waiting for the next attempt; in Exim all that is not frozen
	Held     int       `json:"held"`     // on hold, or frozen; estimated for Exim
	// Oldest is the earliest arrival known, zero if none is.
	Oldest time.Time `json:"oldest,omitzero"`
	// ByAccount leaves out the messages that no account answers for: Unowned
	// (mail from outside, bounces).
	ByAccount []Share `json:"by_account,omitempty"` // the largest first
	Unowned   Share   `json:"unowned"`
	// ByDestination counts a message once for each of its first 16 domains
	// that are still to be delivered to.
	ByDestination []Share       `json:"by_destination,omitempty"`
	ByAge         []Share       `json:"by_age,omitempty"` // "under 5m" to "over 5d", all of them, the youngest first
	Exact         bool          `json:"exact"`
	Read          int           `json:"read"`        // messages of the sample
	Opened        int           `json:"opened"`      // files opened for it; the others were known
	Duration      time.Duration `json:"duration_ns"` // of the look itself
}

// A Share is how many of the queued messages have something in common. The
// true number lies between Low and High in 19 of 20 samples.
type Share struct {
	Name  string `json:"name,omitempty"`
	Count int    `json:"count"`
	Low   int    `json:"low"`
	High  int    `json:"high"`
}

// The names that [QueueSample].ByAge uses, and where each but the last ends.
var (
	ages      = [...]string{"under 5m", "5m-1h", "1h-6h", "6h-1d", "1d-5d", "over 5d"}
	ageLimits = [...]time.Duration{5 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 5 * 24 * time.Hour}
)

// A queueHead is what the head of a queue file tells.
type queueHead struct {
	login   string // as it was written, empty if none
	user    string // the local user that submitted it (Exim)
	uid     int64  // the number of that user (Postfix), -1 if none
	client  netip.Addr
	sender  string    // empty for bounces
	domains []string  // of the recipients still to be delivered to, each once, at most maxHeadDomains
	arrival time.Time // zero if unknown
	held    bool      // frozen; Postfix tells it by the directory
}

// A known message is what is remembered of one in the sample.
type known struct {
	account Account
	domains []string
	arrival time.Time
	held    bool
}

// errBusy means that an earlier look still hangs.
var errBusy = errors.New("mailq: the look at the queue before this one has not ended")

// A sampler draws the sample of a queue. The messages are ordered by a keyed
// hash of their names and the first ones taken: a random choice, but the same
// one the next time, so that only the files of new messages are opened. It
// remembers no more than the last sample.
type sampler struct {
	mu   sync.Mutex // held during a look
	seed maphash.Seed
	seen map[string]known // by file name
}

// A spool is what the kinds of mail queues differ in.
type spool struct {
	host  string
	size  int // of the sample
	top   int
	now   func() time.Time
	right string // what is needed to read it
	// walk offers each queued message.
	walk func(context.Context, *draw, *QueueSample) error
	// read makes sense of a file's head; false if it is no whole message.
	read func(f *os.File, head []byte, p pick) (known, bool)
}

// sample looks at a queue.
func (m *sampler) sample(ctx context.Context, s spool) (QueueSample, error) {
	if !m.mu.TryLock() {
		return QueueSample{}, errBusy
	}
	defer m.mu.Unlock()
	if m.seen == nil {
		m.seed = maphash.MakeSeed()
	}
	began := time.Now()
	q := QueueSample{Time: began, Host: s.host}
	if s.now != nil {
		q.Time = s.now()
	}
	d := &draw{now: q.Time, seed: m.seed, size: defaultSample}
	if s.size > 0 {
		d.size = s.size
	}
	if err := s.walk(ctx, d, &q); err != nil {
		return QueueSample{}, err
	}
	heads, err := m.heads(ctx, d, s, &q)
	if err != nil {
		return QueueSample{}, err
	}
	q.Total, q.Read = d.total, len(heads)
	q.Exact = q.Read == q.Total
	q.Oldest = d.oldest
	top := defaultTop
	if s.top > 0 {
		top = s.top
	}
	q.tell(d, heads, top)
	q.Duration = time.Since(began)
	return q, nil
}

// heads reads the heads of the picked messages that are not known yet. Where
// all were picked, those that are not messages any more, or not yet, are not
// counted either.
func (m *sampler) heads(ctx context.Context, d *draw, s spool, q *QueueSample) ([]known, error) {
	whole := d.total <= d.size
	next := make(map[string]known, len(d.picks))
	heads := make([]known, 0, len(d.picks))
	buf := make([]byte, headBytes)
	for _, p := range d.picks {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("mailq: %s: reading the queue: %w", p.dir, err)
		}
		_, twice := next[p.name] // it was moved while the names were read
		k, ok := m.seen[p.name]
		if !ok && !twice {
			var err error
			q.Opened++
			if k, ok, err = readHead(buf, p, s); err != nil {
				return nil, err
			}
		}
		switch {
		case ok && !twice:
			next[p.name] = k
			heads = append(heads, k)
			d.older(k.arrival)
		case twice || whole:
			d.total--
			*p.queue--
		}
	}
	m.seen = next
	return heads, nil
}

// readHead reads the head of one file; it is no error if that has gone meanwhile.
func readHead(buf []byte, p pick, s spool) (known, bool, error) {
	path := filepath.Join(p.dir, p.name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return known{}, false, nil
	}
	if err != nil {
		return known{}, false, spoolError(path, err, s.right)
	}
	defer f.Close()
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return known{}, false, nil // one damaged file is no reason to see nothing
	}
	k, ok := s.read(f, buf[:n], p)
	return k, ok, nil
}

// spoolError names what cannot be read and the right that is needed.
func spoolError(path string, err error, right string) error {
	err = pathError(path, err)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %s", err, right)
	}
	return err
}

// A pick is a message in the draw.
type pick struct {
	rank  uint64
	name  string // of its file
	dir   string
	queue *int // the count of its queue
}

// A draw is one pass over the names of a queue.
type draw struct {
	now     time.Time
	size    int
	seed    maphash.Seed
	picks   []pick // a heap, the largest rank first
	total   int
	ages    [len(ages)]int
	undated bool // some ids hold no time
	oldest  time.Time
}

// offer counts a message and considers it for the sample.
func (d *draw) offer(name, id, dir string, queue *int) {
	d.total++
	*queue++
	if at, ok := QueueIDTime(id); ok {
		d.ages[ageOf(d.now, at)]++
		d.older(at)
	} else {
		d.undated = true
	}
	rank := maphash.String(d.seed, name)
	if len(d.picks) < d.size {
		d.picks = append(d.picks, pick{rank, strings.Clone(name), dir, queue})
		d.up(len(d.picks) - 1)
	} else if rank < d.picks[0].rank {
		d.picks[0] = pick{rank, strings.Clone(name), dir, queue}
		d.down(0)
	}
}

func (d *draw) older(at time.Time) {
	if !at.IsZero() && (d.oldest.IsZero() || at.Before(d.oldest)) {
		d.oldest = at
	}
}

func (d *draw) up(i int) {
	for i > 0 && d.picks[(i-1)/2].rank < d.picks[i].rank {
		d.picks[(i-1)/2], d.picks[i] = d.picks[i], d.picks[(i-1)/2]
		i = (i - 1) / 2
	}
}

func (d *draw) down(i int) {
	for {
		most := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(d.picks); child++ {
			if d.picks[child].rank > d.picks[most].rank {
				most = child
			}
		}
		if most == i {
			return
		}
		d.picks[i], d.picks[most] = d.picks[most], d.picks[i]
		i = most
	}
}

func ageOf(now, at time.Time) int {
	age := now.Sub(at)
	for i, limit := range ageLimits {
		if age < limit {
			return i
		}
	}
	return len(ageLimits)
}

// tell fills in the shares.
func (q *QueueSample) tell(d *draw, heads []known, top int) {
	accounts, domains := map[string]int{}, map[string]int{}
	var aged [len(ages)]int
	unowned, dated, held := 0, 0, 0
	for _, k := range heads {
		if k.account == "" {
			unowned++
		} else {
			accounts[string(k.account)]++
		}
		for _, name := range k.domains {
			domains[name]++
		}
		if !k.arrival.IsZero() {
			aged[ageOf(d.now, k.arrival)]++
			dated++
		}
		if k.held {
			held++
		}
	}
	q.ByAccount = shares(accounts, len(heads), q.Total, top)
	q.ByDestination = shares(domains, len(heads), q.Total, top)
	q.Unowned = share("", unowned, len(heads), q.Total)
	if !d.undated && !q.Exact { // the names told it of all
		aged, dated = d.ages, q.Total
	}
	for i, name := range ages {
		q.ByAge = append(q.ByAge, share(name, aged[i], dated, q.Total))
	}
	frozen := share("", held, len(heads), q.Total).Count
	q.Held += frozen
	q.Deferred -= frozen
}

// shares are the top largest, the largest first.
func shares(counts map[string]int, read, total, top int) []Share {
	list := make([]Share, 0, len(counts))
	for name, n := range counts {
		list = append(list, share(name, n, read, total))
	}
	slices.SortFunc(list, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Name, b.Name))
	})
	return slices.Clone(list[:min(len(list), top)])
}

// share scales n of read messages to all. The half-width of the 95 % interval
// of a share p is 1.96·sqrt(p(1-p)/read); but what was seen is certain.
func share(name string, n, read, total int) Share {
	if read == 0 || read >= total {
		return Share{name, n, n, n}
	}
	p, all := float64(n)/float64(read), float64(total)
	half := 1.96 * math.Sqrt(p*(1-p)/float64(read))
	return Share{
		Name:  name,
		Count: int(math.Round(p * all)),
		Low:   max(n, int(math.Floor((p-half)*all))),
		High:  min(total-(read-n), int(math.Ceil((p+half)*all))),
	}
}

// eachName calls yield for each name in dir, and in the directories of one
// character that servers hash their queues into. It is no error if one of
// those is gone.
func eachName(ctx context.Context, dir string, depth int, right string, yield func(dir, name string)) error {
	f, err := os.Open(dir)
	if depth > 0 && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return spoolError(dir, err, right)
	}
	defer f.Close()
	var deeper []string
	for err != io.EOF {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("mailq: %s: reading the queue: %w", dir, err)
		}
		var names []string
		if names, err = f.Readdirnames(namesAtOnce); err != nil && err != io.EOF {
			return spoolError(dir, err, right)
		}
		for _, name := range names {
			if len(name) == 1 {
				deeper = append(deeper, name)
			} else {
				yield(dir, name)
			}
		}
	}
	for _, name := range deeper {
		if depth == maxHashDepth {
			break
		}
		if err := eachName(ctx, filepath.Join(dir, name), depth+1, right, yield); err != nil {
			return err
		}
	}
	return nil
}

// remember makes of a head what the sample needs. canonical and user may be nil.
func (h *queueHead) remember(canonical func(string) Account, user func(uid int64) Account) known {
	k := known{domains: h.domains, arrival: h.arrival, held: h.held}
	switch {
	case h.login != "" && canonical != nil:
		k.account = canonical(h.login)
	case h.login != "":
		k.account = Account(h.login)
	case h.sender == "": // a bounce
	case h.user != "":
		k.account = Account(KindUser + ":" + h.user)
	case h.uid >= 0 && user != nil:
		k.account = user(h.uid)
	case h.uid >= 0:
		k.account = Account(KindUID + ":" + strconv.FormatInt(h.uid, 10))
	}
	return k
}

// addRecipient takes note of where a recipient is.
func (h *queueHead) addRecipient(address []byte) {
	at := strings.LastIndexByte(string(address), '@')
	if at < 0 || len(h.domains) == maxHeadDomains {
		return
	}
	domain := clean(appendLower(nil, address[at+1:min(len(address), at+1+1024)]), 255)
	if domain != "" && !slices.Contains(h.domains, domain) {
		h.domains = append(h.domains, domain)
	}
}
