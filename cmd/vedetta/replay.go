package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/vedetta-watch/vedetta/internal/app"
	"github.com/vedetta-watch/vedetta/internal/config"
)

type replayCmd struct {
	Config string   `short:"c" help:"Configuration file; without one the shipped rules and no aliases are used." placeholder:"FILE"`
	JSON   bool     `help:"Print one JSON object a step of the ladder."`
	Learn  bool     `help:"Keep what the logs teach in the state directory of the configuration: for a new installation, before the first serve. Name the logs that serve will not read."`
	Logs   []string `arg:"" name:"log" help:"Log files, oldest first or in any order; .gz and .zst too; - is standard input."`
}

func (cmd *replayCmd) Run(ctx context.Context, std std) error {
	if cmd.Learn && cmd.Config == "" {
		return fmt.Errorf("%w: --learn wants -c FILE, the configuration of the installation that is to learn", errUsage)
	}
	c, err := configOrDefault(cmd.Config)
	if err != nil {
		return err
	}
	o := app.ReplayOptions{Learn: cmd.Learn, Config: c, Paths: cmd.Logs, JSON: cmd.JSON, Out: std.out, Err: std.err, Now: time.Now(), In: std.in}
	if terminal(std.err) {
		o.Progress = progress(std.err)
	}
	return app.Replay(ctx, o)
}

// configOrDefault is the configuration in the file, or the default for no file.
func configOrDefault(path string) (config.Config, error) {
	if path == "" {
		return config.Default(), nil
	}
	return config.Load(path)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress rewrites one line, a few times a second.
func progress(w io.Writer) func(app.Progress) {
	var last time.Time
	begun := time.Now()
	return func(p app.Progress) {
		if p.Done {
			fmt.Fprint(w, "\r\x1b[K")
			return
		}
		now := time.Now()
		if now.Sub(last) < 250*time.Millisecond {
			return
		}
		last = now
		rate := float64(p.Lines) / now.Sub(begun).Seconds()
		fmt.Fprintf(w, "\r\x1b[K%s  %d lines, %.0f a second", p.Time.Format(time.DateTime), p.Lines, rate)
	}
}
