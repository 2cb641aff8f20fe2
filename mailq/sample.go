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
	"syscall"
	"time"
)

const (
	defaultSample  = 5000     // messages looked at: a share is then right within 1.4 points
	defaultTop     = 50       // entries of a list
	headBytes      = 4 << 10  // of a file; the envelope is within it, but for the oddest
	longHeadBytes  = 64 << 10 // of a file whose envelope is not
	namesAtOnce    = 1024
	maxHashDepth   = 4
	maxHeadDomains = 16  // of one message
	maxAddress     = 320 // bytes of an address that are looked at
	enoughUnread   = 20  // files without an envelope, beyond which something is wrong with all
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
	cut     bool      // the text ended before the first recipient
	size    int64     // bytes of the message, 0 where the head does not tell (Exim)
	rcpts   int       // recipients left; those beyond what was read count as left
	odd     bool      // the login is not, letter by letter, what stands in the file
}

// A known message is what is remembered of one in the sample.
type known struct {
	head queueHead
	file fs.FileInfo // as it was read; when it differs it is read again
}

var (
	// errBusy means that an earlier look still hangs.
	errBusy = errors.New("mailq: the look at the queue before this one has not ended")
	// errNoEnvelope means that a file is not as the mail server writes it.
	errNoEnvelope = errors.New("holds no envelope")
)

// A sampler draws the sample of a queue. The messages are ordered by a keyed
// hash of their names and the first ones taken: a random choice, but the same
// one the next time, so that only files that are new or have changed are
// opened. It remembers no more than the last sample.
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
	// whole says whether a file is written to its end; it is a plain file.
	whole func(fs.FileInfo) bool
	// parse reads the first bytes of a file in a directory.
	parse func(text []byte, dir string, file fs.FileInfo) queueHead
	// account says whose a message is, empty if nobody's.
	account func(*queueHead) Account
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
	d := &draw{now: q.Time, seed: m.seed, size: cmp.Or(s.size, defaultSample)}
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
	q.tell(d, heads, s)
	q.Duration = time.Since(began)
	return q, nil
}

// heads looks into the picked files. Where all were picked, those that are not
// messages any more, or not yet, are not counted either. One damaged file is no
// reason to see nothing; most of them are.
func (m *sampler) heads(ctx context.Context, d *draw, s spool, q *QueueSample) ([]queueHead, error) {
	all := d.total <= d.size
	next := make(map[string]known, len(d.picks))
	heads := make([]queueHead, 0, len(d.picks))
	buf := make([]byte, headBytes, longHeadBytes)
	unread, why := 0, error(nil)
	for _, p := range d.picks {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("mailq: %s: reading the queue: %w", p.dir, err)
		}
		_, twice := next[p.name] // it was moved while the names were read
		k, err := known{}, fs.ErrNotExist
		if !twice {
			k, err = m.look(buf, p, s, q)
		}
		switch {
		case err == nil:
			next[p.name] = k
			heads = append(heads, k.head)
			d.older(k.head.arrival)
		case !errors.Is(err, fs.ErrNotExist):
			unread, why = unread+1, cmp.Or(why, err)
		case twice || all:
			d.total--
			*p.queue--
		}
	}
	if unread > len(heads) && (unread >= enoughUnread || !errors.Is(why, errNoEnvelope)) {
		return nil, why
	}
	m.seen = next
	return heads, nil
}

// look reads the head of one file, if it is not known; fs.ErrNotExist means
// that it is no message, not yet or not any more. The file is looked at before
// it is opened: opening a pipe could hang.
func (m *sampler) look(buf []byte, p pick, s spool, q *QueueSample) (known, error) {
	path := filepath.Join(p.dir, p.name)
	file, err := os.Lstat(path)
	if err != nil {
		return known{}, spoolError(path, err, s.right)
	}
	if !file.Mode().IsRegular() || !s.whole(file) {
		return known{}, fs.ErrNotExist
	}
	if k, ok := m.seen[p.name]; ok && unchanged(k.file, file) {
		return k, nil
	}
	q.Opened++
	head, err := s.read(buf, p.dir, path, file)
	return known{head, file}, err
}

// read reads the head of a file in dir.
func (s spool) read(buf []byte, dir, path string, file fs.FileInfo) (head queueHead, err error) {
	f, err := openQueued(path, s.right)
	if err != nil {
		return head, err
	}
	defer f.Close()
	for _, size := range []int{headBytes, longHeadBytes} {
		n, err := f.ReadAt(buf[:size], 0)
		if err != nil && err != io.EOF {
			return head, pathError(path, err)
		}
		if head = s.parse(buf[:n], dir, file); !head.cut || n < size {
			break
		}
	}
	if head.cut || head.arrival.IsZero() {
		return head, pathError(path, errNoEnvelope)
	}
	return head, nil
}

// openQueued opens a plain file, never what a link leads to, and never waits
// for the other end of a pipe.
func openQueued(path, right string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, spoolError(path, err, right)
	}
	return f, nil
}

// unchanged compares what the servers change: they rename files, write anew
// under the same name, mark recipients in place and set the time of the next
// attempt.
func unchanged(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
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
func (q *QueueSample) tell(d *draw, heads []queueHead, s spool) {
	accounts, domains := map[string]int{}, map[string]int{}
	var aged [len(ages)]int
	unowned, held, dated := 0, 0, len(heads)
	for _, h := range heads {
		if account := s.account(&h); account == "" {
			unowned++
		} else {
			accounts[string(account)]++
		}
		for _, name := range h.domains {
			domains[name]++
		}
		aged[ageOf(d.now, h.arrival)]++
		if h.held {
			held++
		}
	}
	top := cmp.Or(s.top, defaultTop)
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

// share scales n of read messages to all, with the 95 % interval of Wilson
// (1927), which holds for rare names too, where the normal approximation does
// not, and narrows as more of a small queue is read; what was seen is certain.
func share(name string, n, read, total int) Share {
	if read >= total {
		return Share{name, n, n, n}
	}
	if read == 0 {
		return Share{name, 0, 0, total}
	}
	p, k, all := float64(n)/float64(read), float64(read), float64(total)
	z2 := 1.96 * 1.96 * (all - k) / (all - 1)
	middle := (p + z2/(2*k)) / (1 + z2/k)
	half := math.Sqrt(z2*(p*(1-p)/k+z2/(4*k*k))) / (1 + z2/k)
	return Share{
		Name:  name,
		Count: int(math.Round(p * all)),
		Low:   max(n, int(math.Floor((middle-half)*all))),
		High:  min(total-(read-n), int(math.Ceil((middle+half)*all))),
	}
}

// eachName calls yield for each name in dir, and in the directories of one
// character that servers hash their queues into, until yield returns an error,
// which it then returns. It is no error if one of those is gone, or is none.
func eachName(ctx context.Context, dir string, depth int, right string, yield func(dir, name string) error) error {
	flags := os.O_RDONLY | syscall.O_DIRECTORY
	if depth > 0 {
		flags |= syscall.O_NOFOLLOW
	}
	f, err := os.OpenFile(dir, flags, 0)
	if depth > 0 && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP)) {
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
			} else if err := yield(dir, name); err != nil {
				return err
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

// account says whose a message is. canonical and user may be nil.
func (h *queueHead) account(canonical func(string) Account, user func(uid int64) Account) Account {
	switch {
	case h.login != "" && canonical != nil:
		return canonical(h.login)
	case h.login != "":
		return Account(h.login)
	case h.user != "":
		return Account(KindUser + ":" + h.user)
	case h.uid >= 0 && user != nil:
		return user(h.uid)
	case h.uid >= 0:
		return Account(KindUID + ":" + strconv.FormatInt(h.uid, 10))
	}
	return ""
}

// setLogin takes a login over. One that is not plain text is nobody's in
// particular: what is left of it could be somebody else's.
func (h *queueHead) setLogin(value []byte) {
	h.login = clean(value, maxAddress)
	h.odd = h.login != string(value)
}

// addRecipient takes note of a recipient that is left, and of where it is.
func (h *queueHead) addRecipient(address []byte) {
	h.rcpts++
	at := strings.LastIndexByte(string(address), '@')
	if at < 0 || len(h.domains) == maxHeadDomains {
		return
	}
	domain := clean(appendLower(nil, address[at+1:min(len(address), at+1+1024)]), 255)
	if domain != "" && !slices.Contains(h.domains, domain) {
		h.domains = append(h.domains, domain)
	}
}
