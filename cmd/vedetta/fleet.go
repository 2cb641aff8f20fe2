package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/internal/app"
	"github.com/vedetta-watch/vedetta/internal/config"
)

type agentCmd struct {
	configFlag
	Debug bool `help:"Log more."`
}

func (cmd *agentCmd) Run(ctx context.Context, io std) error {
	return watch(ctx, cmd.Config, cmd.Debug, io, app.RunAgent)
}

// watch runs a service with a configuration until ctx ends.
func watch(ctx context.Context, path string, debug bool, io std, run func(context.Context, app.Options) error) error {
	c, err := config.Load(path)
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(io.err, &slog.HandlerOptions{Level: level}))
	oneThreadMore()
	err = run(ctx, app.Options{Config: c, Log: log, Registry: prometheus.NewRegistry()})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // stopped before it had begun
	}
	return err
}

// oneThreadMore lets Go run one thread more than there are processors, unless
// the environment says how many. While the log is judged on one and written on
// another, Go's scheduler has nobody to look whether a mail server asks; the
// kernel runs who was woken at once.
func oneThreadMore() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 1)
	}
}

type enrolCmd struct {
	configFlag
	Token string `arg:"" help:"What vedetta agents add printed on the hub; - reads it from standard input, out of sight of other users."`
}

// maxToken bounds what is read of a token.
const maxToken = 1 << 10

func (cmd *enrolCmd) Run(ctx context.Context, std std) error {
	c, err := config.Load(cmd.Config)
	if err != nil {
		return err
	}
	token := cmd.Token
	if token == "-" {
		text, err := io.ReadAll(io.LimitReader(std.in, maxToken))
		if err != nil {
			return err
		}
		token = string(text)
	}
	name, err := app.Enrol(ctx, c, token)
	if err != nil {
		return err
	}
	fmt.Fprintf(std.out, "enrolled as %s at %s; now start vedetta agent\n", name, c.Hub.Address)
	return nil
}

type agentsCmd struct {
	List   agentsListCmd   `cmd:"" default:"withargs" help:"List the agents: version, lag, what waits, what they cannot see."`
	Add    agentsAddCmd    `cmd:"" help:"Let a server become an agent; prints a token for vedetta enrol, good once and for an hour."`
	Revoke agentsRevokeCmd `cmd:"" help:"Refuse an agent from now on."`
}

type agentsListCmd struct {
	configFlag
	JSON bool `help:"Print JSON."`
}

func (cmd *agentsListCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	rows, err := client.Agents(ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, rows)
	}
	w := table(io.out)
	fmt.Fprintln(w, "AGENT\tSTATE\tVERSION\tSEEN\tLAG\tWAITING\tCLOCK\tDOMAINS\tBLIND")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", clean(r.Name), clean(r.State), dash(clean(r.Version)), stamp(r.Seen),
			r.Lag.Round(time.Millisecond), r.Waiting, r.Skew.Round(time.Millisecond), clean(strings.Join(r.Domains, ",")), dash(clean(strings.Join(r.Blind, "; "))))
	}
	return w.Flush()
}

// dash stands for what is not known.
func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

type agentsAddCmd struct {
	configFlag
	Name   string   `arg:"" help:"The server's name, in lower case."`
	Domain []string `required:"" help:"Domain whose mailboxes the server may speak of and is told of; '*' is all. May be repeated." placeholder:"DOMAIN"`
	JSON   bool     `help:"Print JSON."`
}

func (cmd *agentsAddCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	result, err := client.ChangeAgent(ctx, app.AgentOrder{Do: "add", Name: cmd.Name, Domains: cmd.Domain, Who: operator()})
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, result)
	}
	fmt.Fprintln(io.out, result.Token)
	fmt.Fprintf(io.err, "on %s, within an hour: vedetta enrol TOKEN\n", clean(result.Name))
	return nil
}

type agentsRevokeCmd struct {
	configFlag
	Name string `arg:"" help:"The agent's name."`
}

func (cmd *agentsRevokeCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	if _, err := client.ChangeAgent(ctx, app.AgentOrder{Do: "revoke", Name: cmd.Name, Who: operator()}); err != nil {
		return err
	}
	fmt.Fprintf(io.out, "%s is refused from now on; what is blocked there stays so until it is lifted on that server\n", clean(cmd.Name))
	return nil
}
