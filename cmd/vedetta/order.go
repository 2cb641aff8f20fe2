package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

// ordering is what all orders have in common.
type ordering struct {
	configFlag
	Why  string `help:"Reason, for the journal." placeholder:"TEXT"`
	JSON bool   `help:"Print JSON."`
}

// order is one about an account.
type order struct {
	Account string `arg:"" help:"Account, such as alice@example.com."`
	ordering
}

func (o *ordering) give(ctx context.Context, io std, what app.Order) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	what.Who, what.Why = operator(), o.Why
	result, err := client.Act(ctx, what)
	if err != nil {
		return err
	}
	if o.JSON {
		if err := printJSON(io.out, result); err != nil {
			return err
		}
	} else {
		for _, line := range result.Done {
			fmt.Fprintln(io.out, clean(line))
		}
		if result.Password != "" {
			fmt.Fprintf(io.out, "new password of %s: %s\n", clean(result.Account), clean(result.Password))
		}
	}
	if len(result.Failed) == 0 {
		return nil
	}
	errs := make([]error, len(result.Failed))
	for i, line := range result.Failed {
		errs[i] = errors.New(clean(line))
	}
	return errors.Join(errs...)
}

// stop is what hold and block have in common.
type stop struct {
	order
	For    time.Duration `help:"How long; 0 until unblocked." default:"0"`
	DryRun bool          `help:"Print exactly what would be done and run; do nothing."`
}

func (cmd *stop) run(ctx context.Context, io std, do string) error {
	if cmd.For < 0 {
		return fmt.Errorf("%w: --for %s is negative", errUsage, cmd.For)
	}
	return cmd.give(ctx, io, app.Order{Do: do, Account: cmd.Account, For: cmd.For, DryRun: cmd.DryRun})
}

type holdCmd struct{ stop }

func (cmd *holdCmd) Run(ctx context.Context, io std) error { return cmd.run(ctx, io, "hold") }

type blockCmd struct{ stop }

func (cmd *blockCmd) Run(ctx context.Context, io std) error { return cmd.run(ctx, io, "block") }

type resetCmd struct {
	order
	DryRun bool `help:"Print exactly what would be done and run; do nothing."`
}

func (cmd *resetCmd) Run(ctx context.Context, io std) error {
	return cmd.give(ctx, io, app.Order{Do: "reset", Account: cmd.Account, DryRun: cmd.DryRun})
}

type queueHoldCmd struct{ queueOrder }

func (cmd *queueHoldCmd) Run(ctx context.Context, io std) error {
	return cmd.run(ctx, io, "queue-hold")
}

type queueReleaseCmd struct{ queueOrder }

func (cmd *queueReleaseCmd) Run(ctx context.Context, io std) error {
	return cmd.run(ctx, io, "queue-release")
}

type queueDeleteCmd struct {
	queueOrder
	Yes bool `help:"Really delete; without it the messages are only counted."`
}

func (cmd *queueDeleteCmd) Run(ctx context.Context, io std) error {
	cmd.DryRun = cmd.DryRun || !cmd.Yes
	return cmd.run(ctx, io, "queue-delete")
}

// queueOrder is what orders about queued mail have in common.
type queueOrder struct {
	order
	DryRun bool `help:"Count the messages; do nothing."`
}

func (cmd *queueOrder) run(ctx context.Context, io std, do string) error {
	return cmd.give(ctx, io, app.Order{Do: do, Account: cmd.Account, DryRun: cmd.DryRun})
}

type undoCmd struct {
	ordering
	Since  time.Duration `help:"What was decided in the last so much time." required:"" placeholder:"1h"`
	DryRun bool          `help:"Print what would be lifted; do nothing."`
}

func (cmd *undoCmd) Run(ctx context.Context, io std) error {
	if cmd.Since <= 0 {
		return fmt.Errorf("%w: --since %s is not above zero", errUsage, cmd.Since)
	}
	return cmd.give(ctx, io, app.Order{Do: "undo", Since: cmd.Since, DryRun: cmd.DryRun})
}

type unblockCmd struct{ order }

func (cmd *unblockCmd) Run(ctx context.Context, io std) error {
	return cmd.give(ctx, io, app.Order{Do: "unblock", Account: cmd.Account})
}

type releaseCmd struct{ order }

func (cmd *releaseCmd) Run(ctx context.Context, io std) error {
	return cmd.give(ctx, io, app.Order{Do: "release", Account: cmd.Account})
}
