package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/eval"
	"github.com/vedetta-watch/vedetta/rules"
)

// EvalOptions says what to measure with and where to write.
type EvalOptions struct {
	Config   config.Config // its rules count
	Path     string        // a trace, see [eval.ReadTrace]
	Trials   int           // hijacks of each style
	Seed     uint64
	WarmUp   time.Duration // of the trace, not counted
	JSON     bool
	Out      io.Writer
	Progress func(messages, of, trials int) // nil for none
}

// Eval measures on real traffic how much of a hijack gets out before the stop,
// and how often somebody honest is stopped. It acts on nothing.
func Eval(ctx context.Context, o EvalOptions) error {
	set, err := loadRules(o.Config.Rules.Dir)
	if err != nil {
		return err
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	trace, err := eval.ReadTrace(f)
	if err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	r, err := eval.Run(ctx, eval.Options{
		Trace: trace, WarmUp: o.WarmUp, Trials: o.Trials, Seed: o.Seed, Detector: detector.Default(),
		Policy: &rules.Policy{Set: set, Mode: rules.ModeEnforce}, Progress: o.Progress,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", o.Path, err)
	}
	if o.JSON {
		e := json.NewEncoder(o.Out)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	return r.Print(o.Out)
}
