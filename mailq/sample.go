package mailq

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A QueueSample is a mail queue as one look at it found it. Totals are exact;
// the shares are estimates unless Exact is set.
type QueueSample struct {
	Time time.Time `json:"time"` // when the look began, by our clock
	Host string    `json:"host"`

	Total    int `json:"total"`
	Active   int `json:"active"`   // Postfix only, incoming included
	Deferred int `json:"deferred"` // Postfix: the deferred queue; Exim: all that is not frozen
	Held     int `json:"held"`     // Postfix: the hold queue; Exim: frozen, as far as heads were read

	Oldest time.Time `json:"oldest,omitzero"` // arrival, of the messages that were looked into

	ByAccount     []Share `json:"by_account"`     // largest first, at most 50; "" is mail without a login
	ByDestination []Share `json:"by_destination"` // recipient domains, likewise
	ByAge         []Age   `json:"by_age"`         // youngest first

	Read  int           `json:"read"`  // messages that were looked into
	Exact bool          `json:"exact"` // all of them were
	Took  time.Duration `json:"took"`  // nanoseconds
}

// A Share is a part of a queue: an estimate of messages with its bounds at
// 95 % (the normal approximation).
type Share struct {
	Name  string `json:"name"`
	Count int    `json:"count"`
	Low   int    `json:"low"`
	High  int    `json:"high"`
}

// An Age counts messages that are younger than Below and not counted before.
type Age struct {
	Below time.Duration `json:"below"` // nanoseconds; 0: older than all others
	Count int           `json:"count"`
}

// ages are the bands of QueueSample.ByAge.
var ages = [...]time.Duration{5 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 0}

const (
	sampleSize = 5000    // heads that a sample is made of
	headBytes  = 4 << 10 // of a queue file; the envelope is within it
	topShares  = 50
	perListing = 1024 // directory entries read at a time
)

// A head is what the first bytes of a queue file tell.
type head struct {
	login   string // as the server knows it
	user    string // local user, where the message came from this machine
	arrival time.Time
	domains []string // of recipients still to be served, each once
	frozen  bool
}

// A sampler chooses which queue files to look into, and remembers what it
// found. It takes the files whose names hash lowest, so that a message that
// is in the sample stays in it as long as it is queued: each round opens only
// what is new.
type sampler struct {
	seed  maphash.Seed
	ready bool
	heads map[string]head // by path, of the last sample
}

// A pick is a file in the sample. picks is a heap whose root hashes highest.
type pick struct {
	hash uint64
	path string
}

type picks []pick

func (p picks) Len() int           { return len(p) }
func (p picks) Less(i, j int) bool { return p[i].hash > p[j].hash }
func (p picks) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *picks) Push(x any)        { *p = append(*p, x.(pick)) }
func (p *picks) Pop() any {
	last := (*p)[len(*p)-1]
	*p = (*p)[:len(*p)-1]
	return last
}

// choose offers a file to the sample. Its name decides, not its directory, for
// a message moves from queue to queue.
func (s *sampler) choose(p *picks, path string) {
	if !s.ready {
		s.seed, s.ready = maphash.MakeSeed(), true
	}
	h := maphash.String(s.seed, filepath.Base(path))
	switch {
	case len(*p) < sampleSize:
		heap.Push(p, pick{h, path})
	case h < (*p)[0].hash:
		(*p)[0] = pick{h, path}
		heap.Fix(p, 0)
	}
}

// look reads the heads of the sample, those that are not known yet, and
// completes q with what they tell. A file that has gone meanwhile, or is not
// complete yet, is left out.
func (s *sampler) look(ctx context.Context, q *QueueSample, p picks, parse func(text []byte, info fs.FileInfo) (head, bool)) ([]head, error) {
	known := make(map[string]head, len(p))
	found := make([]head, 0, len(p))
	for _, pick := range p {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("mailq: %s: %w", filepath.Dir(pick.path), err)
		}
		h, ok := s.heads[pick.path]
		if !ok {
			var err error
			if h, ok, err = readHead(pick.path, parse); err != nil {
				return nil, err
			}
		}
		if ok {
			known[pick.path] = h
			found = append(found, h)
		}
	}
	s.heads = known
	q.Read, q.Exact = len(found), len(p) == q.Total
	return found, nil
}

// readHead reads the first bytes of a queue file with one call.
func readHead(path string, parse func([]byte, fs.FileInfo) (head, bool)) (head, bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return head{}, false, nil
	}
	if err != nil {
		return head{}, false, spoolError(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return head{}, false, nil
	}
	var buf [headBytes]byte
	n, err := io.ReadFull(f, buf[:])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return head{}, false, fmt.Errorf("mailq: %w", err)
	}
	h, ok := parse(buf[:n], info)
	return h, ok, nil
}

// spoolError says what is missing where the queue may not be read.
func spoolError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("mailq: %w; let this user read the queue, for instance by CAP_DAC_READ_SEARCH (see docs/postfix.md)", err)
	}
	return fmt.Errorf("mailq: %w", err)
}

// fill puts the heads' shares into the sample, scaled to the total.
func (q *QueueSample) fill(heads []head, canonical func(string) Account) {
	accounts, domains := map[string]int{}, map[string]int{}
	var byAge [len(ages)]int
	for _, h := range heads {
		accounts[accountOf(h, canonical)]++
		for _, d := range h.domains {
			domains[d]++
		}
		if h.arrival.IsZero() {
			continue
		}
		if q.Oldest.IsZero() || h.arrival.Before(q.Oldest) {
			q.Oldest = h.arrival
		}
		byAge[band(q.Time.Sub(h.arrival))]++
	}
	q.ByAccount, q.ByDestination = q.shares(accounts), q.shares(domains)
	for i, n := range byAge {
		q.ByAge = append(q.ByAge, Age{ages[i], q.scaled(n)})
	}
}

func accountOf(h head, canonical func(string) Account) string {
	switch {
	case h.login != "" && canonical != nil:
		return string(canonical(h.login))
	case h.login != "":
		return strings.ToLower(h.login)
	case h.user != "":
		return KindUser + ":" + h.user
	}
	return ""
}

func band(age time.Duration) int {
	for i, below := range ages {
		if age < below || below == 0 {
			return i
		}
	}
	return len(ages) - 1
}

// scaled is the estimate of a count among those read for the whole queue.
func (q *QueueSample) scaled(n int) int {
	if q.Exact || q.Read == 0 {
		return n
	}
	return int(math.Round(float64(n) / float64(q.Read) * float64(q.Total)))
}

func (q *QueueSample) shares(counts map[string]int) []Share {
	all := make([]Share, 0, len(counts))
	for name, n := range maps.All(counts) {
		s := Share{Name: name, Count: q.scaled(n)}
		s.Low, s.High = s.Count, s.Count
		if !q.Exact && q.Read > 0 {
			p := float64(n) / float64(q.Read)
			half := 1.96 * math.Sqrt(p*(1-p)/float64(q.Read)) * float64(q.Total)
			s.Low, s.High = max(n, int(float64(s.Count)-half)), min(q.Total, int(math.Ceil(float64(s.Count)+half)))
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Share) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return all[:min(len(all), topShares)]
}

// walk yields the files of a queue directory and of the directories in which
// its files are hashed, in the order that costs least. It reads names alone.
func walk(ctx context.Context, dir string, depth int, yield func(path string)) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) && depth > 0 {
		return nil // a hashed directory that has just gone
	}
	if err != nil {
		return spoolError(err)
	}
	defer f.Close()
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("mailq: %s: %w", dir, err)
		}
		entries, err := f.ReadDir(perListing)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if !e.IsDir() {
				yield(path)
			} else if len(e.Name()) == 1 && depth < maxHashed {
				if err := walk(ctx, path, depth+1, yield); err != nil {
					return err
				}
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return spoolError(err)
		}
	}
}

// maxHashed is how deep files may be hashed (Postfix's hash_queue_depth is 1).
const maxHashed = 4
