package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

// order is what block, unblock and release have in common.
type order struct {
	configFlag
	Account string `arg:"" help:"Account, such as alice@example.com."`
	Why     string `help:"Reason, for the journal." placeholder:"TEXT"`
	JSON    bool   `help:"Print JSON."`
}

func (o *order) give(ctx context.Context, io std, do string, d time.Duration) error {
	client, err := o.client()
	if err != nil {
		return err
	}
	result, err := client.Act(ctx, app.Order{Do: do, Account: o.Account, For: d, Who: operator(), Why: o.Why})
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

type blockCmd struct {
	order
	For time.Duration `help:"How long; 0 until unblocked." default:"0"`
}

func (cmd *blockCmd) Run(ctx context.Context, io std) error {
	if cmd.For < 0 {
		return fmt.Errorf("%w: --for %s is negative", errUsage, cmd.For)
	}
	return cmd.give(ctx, io, "block", cmd.For)
}

type unblockCmd struct{ order }

func (cmd *unblockCmd) Run(ctx context.Context, io std) error {
	return cmd.give(ctx, io, "unblock", 0)
}

type releaseCmd struct{ order }

func (cmd *releaseCmd) Run(ctx context.Context, io std) error {
	return cmd.give(ctx, io, "release", 0)
}
