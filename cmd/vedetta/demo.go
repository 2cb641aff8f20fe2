package main

import (
	"context"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type demoCmd struct {
	Once bool `help:"End after the story."`
}

func (cmd *demoCmd) Run(ctx context.Context, io std) error {
	return app.Demo(ctx, app.DemoOptions{Out: io.out, Once: cmd.Once})
}
