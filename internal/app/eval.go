package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/eval"
	"github.com/vedetta-watch/vedetta/mailq"
)

type (
	// EvalPart is one of several parts of the accounts.
	EvalPart = eval.Part
	// EvalProgress is how far an Eval has come.
	EvalProgress = eval.Progress
	// EvalListing is how block lists come to list an address.
	EvalListing = eval.Listing
)

// EvalOptions says what to measure with and where to write.
type EvalOptions struct {
	Config   config.Config // its rules and accounts count
	Paths    []string      // a trace, see [eval.ReadTrace], or mail logs; "-" is a log on standard input
	In       io.Reader     // standard input
	Now      time.Time     // stamps without a year are not after this
	Trials   int           // hijacks of each style
	Odd      int           // honest but odd senders of each kind
	Seed     uint64
	Part     EvalPart
	WarmUp   time.Duration // of the traffic, not counted
	Listing  *EvalListing  // nil: no race with block lists
	Picture  string        // file for the picture; empty for none
	JSON     bool
	Out      io.Writer
	Err      io.Writer          // how many lines of logs were passed over
	Progress func(EvalProgress) // nil for none
}

// Eval measures on real traffic how much of a hijack gets out before the stop,
// and how often somebody honest is stopped. It acts on nothing.
func Eval(ctx context.Context, o EvalOptions) (err error) {
	picture, err := newPicture(o.Picture)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, picture.close(err == nil)) }()
	aliases, err := loadAliases(ctx, o.Config.Accounts.Aliases)
	if err != nil {
		return err
	}
	dir := &directory{}
	dir.set(buildDirectory(o.Config.Accounts, aliases))
	o.Config.Mode = config.ModeEnforce // what would have been done
	j, err := newJudge(o.Config, dir, o.Now)
	if err != nil {
		return err
	}
	run := eval.Options{
		WarmUp: o.WarmUp, Trials: o.Trials, Odd: o.Odd, Seed: o.Seed, Part: o.Part, Listing: o.Listing, Owners: dir.Load(), Detector: detectorConfig(o.Config), Policy: j.policy, Progress: o.Progress,
	}
	if o.isTrace() {
		run.Traffic, err = readTrace(o.Paths[0])
		run.Detector.Locate = eval.Locate
	} else {
		if err := j.places.load(); err != nil {
			return fmt.Errorf("geoip: %w", err)
		}
		if len(j.places.files()) > 0 {
			run.Detector.Locate = j.places.Locate
		}
		run.Traffic, err = o.readLogs(ctx, j.parser)
	}
	if err != nil {
		return err
	}
	r, err := eval.Run(ctx, run)
	if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(o.Paths, " "), err)
	}
	if picture.f != nil {
		if err := r.Picture(picture.f); err != nil {
			return err
		}
	}
	if o.JSON {
		e := json.NewEncoder(o.Out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.Print(o.Out)
}

// A picture is the file for it, made before the work begins so that a wrong path
// is known at once. The zero picture is none.
type picture struct{ f *os.File }

func newPicture(path string) (p picture, err error) {
	if path != "" {
		p.f, err = os.Create(path)
	}
	return p, err
}

// close keeps the file only if it was drawn.
func (p picture) close(drawn bool) error {
	switch {
	case p.f == nil:
		return nil
	case !drawn:
		return errors.Join(p.f.Close(), os.Remove(p.f.Name()))
	}
	return p.f.Close()
}

// isTrace reports whether what is to be read is a trace and not logs.
func (o EvalOptions) isTrace() bool {
	if len(o.Paths) != 1 || o.Paths[0] == "-" {
		return false
	}
	f, err := os.Open(o.Paths[0])
	if err != nil {
		return false // reading it as a log says why
	}
	defer f.Close()
	return eval.IsTrace(f)
}

func readTrace(path string) ([]eval.Message, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := eval.ReadTrace(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

// errNoTraffic means that logs tell of no mail that somebody here answers for.
var errNoTraffic = errors.New("neither a trace of lines time,sender,recipient nor a log of mail that an account here has sent")

// mostTraffic bounds what is kept of logs, some 200 bytes each.
const mostTraffic = 20_000_000

func (o EvalOptions) readLogs(ctx context.Context, parser *mailq.Parser) ([]eval.Message, error) {
	var g eval.Gatherer
	reader := &logReader{
		paths: o.Paths, stdin: o.In, location: parser.Location, now: o.Now, progress: func() {
			if o.Progress != nil {
				o.Progress(EvalProgress{Messages: g.Len()})
			}
		},
		line: func(line []byte) error {
			var ev mailq.Event
			if parser.ParseInto(&ev, line) {
				g.Add(&ev)
			}
			if g.Len() > mostTraffic {
				return fmt.Errorf("more than %d messages and logins: name fewer logs", mostTraffic)
			}
			return nil
		},
	}
	if err := reader.run(ctx); err != nil {
		return nil, err
	}
	all := g.Traffic()
	if len(all) == 0 {
		return nil, fmt.Errorf("%s: %w", strings.Join(o.Paths, " "), errNoTraffic)
	}
	tellPassedOver(o.Err, parser.Stats(), reader.tooLong.Load())
	return all, nil
}
