package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/vedetta-watch/vedetta/internal/app"
	"github.com/vedetta-watch/vedetta/internal/config"
)

// configFlag is the option that most commands share.
type configFlag struct {
	Config string `short:"c" default:"/etc/vedetta/vedetta.yaml" env:"VEDETTA_CONFIG" help:"Configuration file." placeholder:"FILE"`
}

// client finds the running service by the configuration that it runs with.
func (f configFlag) client() (*app.Client, error) {
	c, err := config.Load(f.Config)
	if err != nil {
		return nil, err
	}
	return app.NewClient(c)
}

// operator names who gives an order, for the journal.
func operator() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return fmt.Sprintf("uid %d", os.Getuid())
}

// printJSON writes one object, indented.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// table writes aligned columns; the caller flushes.
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 4, 2, ' ', 0) }

// clean makes outside text safe for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, s)
}

// stamp prints a time for people, in their zone; nothing for the zero time.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

type accountsCmd struct {
	configFlag
	Limit int  `default:"50" help:"How many to list."`
	JSON  bool `help:"Print JSON."`
}

func (cmd *accountsCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	rows, err := client.Accounts(ctx, cmd.Limit)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, rows)
	}
	w := table(io.out)
	fmt.Fprintln(w, "ACCOUNT\tSCORE\tACTION\tUNTIL\tMESSAGES\tRECIPIENTS KNOWN\tLAST SEEN")
	for _, r := range rows {
		action := r.Action
		if action == "" {
			action = "-"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%s\t%s\t%d\t%d\t%s\n", clean(r.Account), r.Score, action, stamp(r.Until), r.Messages, r.Known, stamp(r.LastSeen))
	}
	return w.Flush()
}

type whyCmd struct {
	configFlag
	Account string `arg:"" help:"Account, such as alice@example.com."`
	JSON    bool   `help:"Print JSON."`
}

func (cmd *whyCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	why, err := client.Why(ctx, cmd.Account)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, why)
	}
	for _, line := range why.Text {
		fmt.Fprintln(io.out, clean(line))
	}
	return nil
}

type queueCmd struct {
	Show    queueShowCmd    `cmd:"" default:"withargs" help:"Show the mail queue by account."`
	Hold    queueHoldCmd    `cmd:"" help:"Put an account's queued mail on hold."`
	Release queueReleaseCmd `cmd:"" help:"Let an account's held mail go, at once."`
	Delete  queueDeleteCmd  `cmd:"" help:"Delete an account's queued mail."`
}

type queueShowCmd struct {
	configFlag
	JSON bool `help:"Print JSON."`
}

func (cmd *queueShowCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	q, err := client.Queue(ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, q)
	}
	fmt.Fprintf(io.out, "by the log: %d messages accepted and not yet gone, %d of them held\n", q.Total, q.Held)
	w := table(io.out)
	for _, s := range q.Open {
		fmt.Fprintf(w, "  %s\t%d\theld %d\tsince %s\n", clean(s.Account), s.Count, s.Held, stamp(s.Oldest))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if q.Error != "" {
		fmt.Fprintf(io.out, "the queue could not be read: %s\n", clean(q.Error))
	}
	if len(q.Sample) == 0 {
		return nil
	}
	var sample app.QueueSample
	if err := json.Unmarshal(q.Sample, &sample); err != nil {
		return fmt.Errorf("what vedetta serve knows of the queue cannot be read: %w", err)
	}
	return printSample(io.out, &sample)
}

// sharesShown is how many accounts and domains people are shown, the largest first.
const sharesShown = 20

// printSample says what the queue itself holds. Of a large one the shares are estimates.
func printSample(out io.Writer, s *app.QueueSample) error {
	about := ""
	if !s.Exact {
		about = "about "
	}
	fmt.Fprintf(out, "by the queue itself, at %s: %d messages, %s%d of them held", stamp(s.Time), s.Total, about, s.Held)
	if !s.Oldest.IsZero() {
		fmt.Fprintf(out, ", the oldest since %s", stamp(s.Oldest))
	}
	fmt.Fprintln(out)
	w := table(out)
	for _, part := range []struct {
		what   string
		shares []app.QueueShare
	}{{"from ", s.ByAccount}, {"to ", s.ByDestination}, {"", s.ByAge}} {
		shown := part.shares[:min(len(part.shares), sharesShown)]
		for _, share := range shown {
			if share.Count > 0 {
				fmt.Fprintf(w, "  %s%s\t%s%d\n", part.what, clean(share.Name), about, share.Count)
			}
		}
		if more := len(part.shares) - len(shown); more > 0 {
			fmt.Fprintf(w, "  %s%d others\t\n", part.what, more)
		}
	}
	return w.Flush()
}
