package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/vedetta-watch/vedetta/internal/app"
	"github.com/vedetta-watch/vedetta/internal/config"
)

type serveCmd struct {
	configFlag
	Debug bool `help:"Log more."`
}

func (cmd *serveCmd) Run(ctx context.Context, io std) error {
	return watch(ctx, cmd.Config, cmd.Debug, io, app.Run)
}

type configCmd struct {
	Check configCheckCmd `cmd:"" help:"Check a configuration file; name every mistake with its line."`
}

type configCheckCmd struct{ configFlag }

func (cmd *configCheckCmd) Run(ctx context.Context, io std) error {
	c, err := config.Load(cmd.Config)
	if err != nil {
		return err
	}
	warnings, err := app.CheckLists(c)
	if err := errors.Join(app.CheckRules(c), app.CheckPlaces(c), err); err != nil {
		return err
	}
	for _, text := range warnings {
		fmt.Fprintln(io.out, "block lists:", clean(text))
	}
	fmt.Fprintf(io.out, "%s is right; mode is %s\n", cmd.Config, c.Mode)
	if c.Rules.WrongStops == 0 {
		return nil
	}
	k, err := app.Calibration(ctx, c)
	switch {
	case err != nil:
		fmt.Fprintf(io.out, "where the thresholds came out cannot be read: %v\n", err)
	case !k.Enough:
		fmt.Fprintf(io.out, "thresholds are as shipped, a hold at %.1f: %d ordinary mailbox-days are known, 20000 are needed\n", k.Hold, k.MailboxDays)
	default:
		fmt.Fprintf(io.out, "a hold is at %.1f (as shipped 12), for %g wrong in 100000 mailbox-days; %d are known\n", k.Hold, k.Target, k.MailboxDays)
	}
	return nil
}

type healthCmd struct {
	configFlag
	JSON bool `help:"Print JSON."`
}

func (cmd *healthCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	h, err := client.Health(ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		if err := printJSON(io.out, h); err != nil {
			return err
		}
	} else {
		w := table(io.out)
		for _, part := range sortedKeys(h.Parts) {
			fmt.Fprintf(w, "%s\t%s\n", clean(part), clean(h.Parts[part]))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if !h.OK {
		return errors.New("the service is not well")
	}
	return nil
}
