package main

import (
	"context"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type evalCmd struct {
	Config string        `short:"c" help:"Configuration file, for its rules; without one the shipped rules are used." placeholder:"FILE"`
	Trials int           `help:"Hijacks of each style." default:"200"`
	Seed   uint64        `help:"Same seed, same hijacks." default:"1"`
	WarmUp time.Duration `help:"Beginning of the trace that is learnt from and not counted." default:"720h"`
	JSON   bool          `help:"Print the result as JSON."`
	Trace  string        `arg:"" help:"Mail metadata, lines of time,sender,recipient as numbers; plain or gzip."`
}

func (cmd *evalCmd) Run(ctx context.Context, std std) error {
	if cmd.Trials < 1 || cmd.Trials > 1_000_000 || cmd.WarmUp < 0 {
		return fmt.Errorf("%w: --trials is from 1 to 1000000, and --warm-up not negative", errUsage)
	}
	c, err := configOrDefault(cmd.Config)
	if err != nil {
		return err
	}
	o := app.EvalOptions{Config: c, Path: cmd.Trace, Trials: cmd.Trials, Seed: cmd.Seed, WarmUp: cmd.WarmUp, JSON: cmd.JSON, Out: std.out}
	if terminal(std.err) {
		o.Progress = func(messages, of, trials int) {
			fmt.Fprintf(std.err, "\r\x1b[K%d of %d messages, %d of %d hijacks of each style", messages, of, trials, cmd.Trials)
		}
		defer fmt.Fprint(std.err, "\r\x1b[K")
	}
	return app.Eval(ctx, o)
}
