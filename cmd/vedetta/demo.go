package main

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type demoCmd struct {
	Once bool `help:"End after the story."`
}

// Run ends the demonstration in order when nobody reads on (demo | head): its files go.
func (cmd *demoCmd) Run(ctx context.Context, io std) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGPIPE)
	defer stop()
	return app.Demo(ctx, app.DemoOptions{Out: io.out, Once: cmd.Once})
}
