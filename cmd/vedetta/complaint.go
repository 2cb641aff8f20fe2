package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/vedetta-watch/vedetta/internal/app"
)

// exitTempFail is EX_TEMPFAIL of sysexits(3): a mail server that pipes a message
// into the command keeps it and tries again.
const exitTempFail exitStatus = 75

type complaintCmd struct {
	configFlag
	Files []string `arg:"" optional:"" name:"file" help:"Messages, one a file; standard input if there is none." type:"path"`
}

// Run hands each message in. What is no complaint is no failure: a mail server
// would send it back to a stranger.
func (cmd *complaintCmd) Run(ctx context.Context, std std) error {
	if len(cmd.Files) == 0 {
		return cmd.hand(ctx, std, std.in, "standard input")
	}
	var errs []error
	for _, path := range cmd.Files {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("%w: %w", errUsage, err)
		}
		errs = append(errs, cmd.hand(ctx, std, f, path))
		f.Close()
	}
	return errors.Join(errs...)
}

// hand gives one message to the running service.
func (cmd *complaintCmd) hand(ctx context.Context, std std, message io.Reader, name string) error {
	c, err := app.ReadComplaint(message)
	if err != nil {
		return later(std, name, err)
	}
	if _, err := io.Copy(io.Discard, message); err != nil { // a mail server writes all of it
		return later(std, name, err)
	}
	client, err := cmd.client()
	if err != nil {
		return later(std, name, err)
	}
	result, err := client.Complain(ctx, c)
	if err != nil {
		return later(std, name, err)
	}
	text := result.Result
	if result.Account != "" {
		text += ": " + clean(result.Account)
	}
	_, _ = fmt.Fprintln(std.out, text) // it is handed in, whoever reads that
	return nil
}

// later says why a message could not be handed in now.
func later(std std, name string, err error) error {
	fmt.Fprintf(std.err, "vedetta: %s: not handed in, try again: %v\n", clean(name), err)
	return exitTempFail
}
