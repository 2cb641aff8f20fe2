package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type benchCmd struct {
	Load loadCmd `cmd:"" help:"Load a hub of the measurement's own, on loopback, with simulated agents."`
}

type loadCmd struct {
	Agents   int           `default:"100" help:"Simulated agents."`
	Rate     int           `default:"0" help:"Events a second of all; 0: as fast as they are acknowledged."`
	Duration time.Duration `default:"20s" help:"How long they send."`
	Hijacks  int           `default:"2" help:"Mailboxes that are hijacked each second."`
	JSON     bool          `help:"Print JSON."`
}

func (cmd *loadCmd) Run(ctx context.Context, io std) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	load := app.Load{Agents: cmd.Agents, Rate: cmd.Rate, Duration: cmd.Duration, Hijacks: cmd.Hijacks, Program: program, Progress: io.err}
	if err := load.Check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	r, err := app.RunLoad(ctx, load)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, r)
	}
	w := table(io.out)
	fmt.Fprintf(w, "agents\t%d\n", r.Agents)
	fmt.Fprintf(w, "events acknowledged\t%d of %d in %.1f s: %.0f a second\n", r.Acknowledged, r.Sent, r.Seconds, r.PerSecond)
	fmt.Fprintf(w, "until acknowledged\tp50 %s, p99 %s\n", r.AckP50.Round(time.Microsecond), r.AckP99.Round(time.Microsecond))
	if r.Hijacks > 0 {
		fmt.Fprintf(w, "event to block at the agent\tp50 %s, p99 %s (%d of %d hijacked mailboxes blocked)\n",
			r.BlockP50.Round(time.Millisecond), r.BlockP99.Round(time.Millisecond), r.Blocked, r.Hijacks)
	}
	fmt.Fprintf(w, "hub\t%.2f of %d processors, %d MB at most\n", r.HubCPU, r.CPUs, r.HubMemory>>20)
	return w.Flush()
}
