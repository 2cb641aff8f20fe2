package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type keyCmd struct {
	Show   keyShowCmd   `cmd:"" default:"withargs" help:"Tell whether the key is being rotated, until when, and which agents it waits for."`
	Rotate keyRotateCmd `cmd:"" help:"Begin to replace the key; what is known of recipients stays known."`
}

type keyShowCmd struct {
	configFlag
	JSON bool `help:"Print JSON."`
}

func (cmd *keyShowCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	r, err := client.Rotation(ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, r)
	}
	return printRotation(io.out, r)
}

func printRotation(out io.Writer, r app.Rotation) error {
	text := "the key is not being rotated"
	switch {
	case len(r.Waits) > 0:
		text = fmt.Sprintf("the key is being rotated since %s; it waits for %s: not connected, or of a version that cannot", stamp(r.Begun), clean(strings.Join(r.Waits, ", ")))
	case !r.Begun.IsZero():
		text = fmt.Sprintf("the key is being rotated since %s, until %s", stamp(r.Begun), stamp(r.Ends))
	}
	if r.Last != "" && len(r.Waits) == 0 {
		text += fmt.Sprintf("; the time counts from when %s hashed with both keys, or was revoked", clean(r.Last))
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

type keyRotateCmd struct {
	configFlag
	For   time.Duration `help:"How long recipients are learnt under both keys, at least 720h; 0 is keep.accounts." default:"0"`
	Again bool          `help:"The next key of the rotation under way has leaked: begin anew with another."`
	Why   string        `help:"Why, for the journal."`
}

func (cmd *keyRotateCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	r, err := client.Rotate(ctx, app.KeyOrder{For: cmd.For, Again: cmd.Again, Who: operator(), Why: cmd.Why})
	if err != nil {
		return err
	}
	return printRotation(io.out, r)
}
