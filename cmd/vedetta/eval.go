package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type evalCmd struct {
	Config  string        `short:"c" help:"Configuration file, for its rules and accounts; without one the shipped rules are used." placeholder:"FILE"`
	Trials  int           `help:"Hijacks of each style." default:"200"`
	Seed    uint64        `help:"Same seed, same hijacks." default:"1"`
	WarmUp  time.Duration `help:"Beginning of the mail that is learnt from and not counted." default:"720h"`
	Odd     int           `help:"Honest but odd senders of each kind, made up." default:"5"`
	Part    string        `help:"Count and hijack only this part of the accounts, by a hash of their names." placeholder:"N/M"`
	SVG     string        `help:"Write a picture: recipients before the stop against honest mailbox-days stopped." placeholder:"FILE"`
	Listing bool          `help:"Also count the hijacks that would have got the address onto a block list."`
	Traps   float64       `help:"Share of a hijacker's strangers that are a block list's spam traps." default:"0.001"`
	Reports float64       `help:"Share of his recipients that report the mail to a block list." default:"0.001"`
	Spree   int           `help:"Recipients of a hijack that nobody stops." default:"10000"`
	JSON    bool          `help:"Print the result as JSON."`
	Mail    []string      `arg:"" help:"Mail logs, as for replay, or one file of mail metadata: lines of time,sender,recipient as numbers, plain or gzip."`
}

func (cmd *evalCmd) Run(ctx context.Context, std std) error {
	if cmd.Trials < 1 || cmd.Trials > 1_000_000 || cmd.Odd < 0 || cmd.Odd > 250 || cmd.WarmUp < 0 {
		return fmt.Errorf("%w: --trials is from 1 to 1000000, --odd from 0 to 250, and --warm-up not negative", errUsage)
	}
	if !(cmd.Traps >= 0 && cmd.Traps < 1 && cmd.Reports >= 0 && cmd.Reports < 1) || cmd.Spree < 1 || cmd.Spree > 10_000_000 {
		return fmt.Errorf("%w: --traps and --reports are from 0 to below 1, and --spree from 1 to 10000000", errUsage)
	}
	part, err := parsePart(cmd.Part)
	if err != nil {
		return err
	}
	c, err := configOrDefault(cmd.Config)
	if err != nil {
		return err
	}
	o := app.EvalOptions{Config: c, Paths: cmd.Mail, In: std.in, Now: time.Now(), Trials: cmd.Trials, Odd: cmd.Odd, Seed: cmd.Seed, Part: part, WarmUp: cmd.WarmUp, Picture: cmd.SVG, JSON: cmd.JSON, Out: std.out, Err: std.err}
	if cmd.Listing {
		o.Listing = &app.EvalListing{Traps: cmd.Traps, Reports: cmd.Reports, Spree: cmd.Spree}
	}
	if terminal(std.err) {
		o.Progress = func(p app.EvalProgress) {
			traffic := ""
			if p.Of == 0 {
				fmt.Fprintf(std.err, "\r\x1b[K%d messages and logins read", p.Messages)
				return
			}
			if p.Odd {
				traffic = ", with odd senders beside them"
			}
			fmt.Fprintf(std.err, "\r\x1b[K%d of %d messages%s, %d of %d hijacks of each style", p.Messages, p.Of, traffic, p.Trials, cmd.Trials)
		}
		defer fmt.Fprint(std.err, "\r\x1b[K")
	}
	return app.Eval(ctx, o)
}

// parsePart reads "2/3", the second of three parts; nothing is all.
func parsePart(text string) (part app.EvalPart, err error) {
	if text == "" {
		return part, nil
	}
	n, of, ok := strings.Cut(text, "/")
	part.N, err = strconv.Atoi(n)
	if err == nil && ok {
		part.Of, err = strconv.Atoi(of)
	}
	if err != nil || part.Of < 1 || part.N < 1 || part.N > part.Of || part.Of > 1000 {
		return part, fmt.Errorf("%w: --part %q is no part such as 1/2", errUsage, text)
	}
	return part, nil
}
