// Vedetta watches a hosting provider's outbound mail: it notices a hijacked
// mailbox or script within a few messages, stops its sending, and tells the
// people on duty.
//
// Output for people goes to standard output, progress and errors to standard
// error; errors begin in lower case and name the thing and what to do. Exit
// codes: 0 done, 1 it failed, 2 wrong usage; dnsbl check has its own.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vedetta-watch/vedetta/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], std{os.Stdin, os.Stdout, os.Stderr}))
}

// A std is where a command reads and writes.
type std struct {
	in       io.Reader
	out, err io.Writer
}

// cli is the command line, a field a command.
type cli struct {
	Serve     serveCmd     `cmd:"" help:"Watch: read logs, answer the gate, act, tell."`
	Agent     agentCmd     `cmd:"" help:"Watch one server of a fleet: read logs, answer the gate, and leave judging to the hub."`
	Enrol     enrolCmd     `cmd:"" help:"Make this server an agent of its hub, with a token from vedetta agents add."`
	Agents    agentsCmd    `cmd:"" help:"On a hub: list, add and revoke agents."`
	Key       keyCmd       `cmd:"" help:"The key with which recipients are hashed: see how it stands, rotate it."`
	Tokens    tokensCmd    `cmd:"" help:"List, make and revoke tokens for the API."`
	Bench     benchCmd     `cmd:"" help:"Measure on this machine."`
	Replay    replayCmd    `cmd:"" help:"Run the detector and the rules over old logs; acts on nothing."`
	Eval      evalCmd      `cmd:"" help:"Measure on real traffic how much of a hijack gets out, and how often somebody honest is stopped."`
	Demo      demoCmd      `cmd:"" help:"Show a hijack being found, blocked and reported, on this machine alone."`
	Accounts  accountsCmd  `cmd:"" help:"List accounts, those with most evidence first."`
	Why       whyCmd       `cmd:"" help:"Tell everything that led to where an account stands."`
	Hold      holdCmd      `cmd:"" help:"Accept an account's mail and keep it in the queue."`
	Block     blockCmd     `cmd:"" help:"Refuse an account's mail."`
	Reset     resetCmd     `cmd:"" help:"Block an account, change its password and end its sessions."`
	Unblock   unblockCmd   `cmd:"" help:"Let a stopped account send again; what it did stays suspicious."`
	Release   releaseCmd   `cmd:"" help:"Clear an account: lift everything, and learn that what it did was right."`
	Undo      undoCmd      `cmd:"" help:"Lift everything that the rules decided lately, for a bad hour."`
	Queue     queueCmd     `cmd:"" help:"Show the mail queue by account; hold, release or delete an account's."`
	DNSBL     dnsblCmd     `cmd:"" name:"dnsbl" help:"Ask DNS block lists about addresses and domains."`
	Complaint complaintCmd `cmd:"" help:"Hand in complaints of feedback loops, from files or standard input: for a mail server to pipe them into."`
	Rules     rulesCmd     `cmd:"" help:"Work on rule files."`
	Config    configCmd    `cmd:"" help:"Work on the configuration file."`
	Health    healthCmd    `cmd:"" help:"Ask a running service whether it is well."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// errUsage marks a mistake in how the command was called.
var errUsage = errors.New("wrong usage")

// exited carries a wish of kong's to end, such as after --help.
type exited struct{ code int }

// commandsFor returns the part of cli that args call, all of it where they name no
// command: to make all of it ready takes longer than many a command.
func commandsFor(args []string) any {
	for command := range reflect.TypeFor[cli]().Fields() {
		if len(args) > 0 && args[0] == strings.ToLower(command.Name) {
			return reflect.New(reflect.StructOf([]reflect.StructField{command})).Interface()
		}
	}
	return &cli{}
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, io std) (code int) {
	out := &output{Writer: io.out}
	io.out = out
	code = runAs(ctx, commandsFor(args), args, io)
	if code == 0 && out.err != nil && !errors.Is(out.err, syscall.EPIPE) { // who reads no further knows
		fmt.Fprintln(io.err, "vedetta: what was to be printed is lost:", out.err)
		return 1
	}
	return code
}

// output keeps the first error of writing: a password or a token that a full disk took
// was shown to nobody.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// duration reads one as the configuration does: 90d, too.
func duration(ctx *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := ctx.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := config.ParseDuration(text)
	target.SetInt(int64(d))
	return err
}

// runAs is run with the commands of a struct for kong.
func runAs(ctx context.Context, commands any, args []string, io std) (code int) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case exited:
			code = e.code
		default:
			panic(e)
		}
	}()
	parser, err := kong.New(commands,
		kong.Name("vedetta"),
		kong.Description("Watches outbound mail and stops hijacked mailboxes."),
		kong.Writers(io.out, io.err),
		kong.Exit(func(code int) { panic(exited{code}) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(duration)),
	)
	if err != nil {
		panic(err) // a mistake in the struct above
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(io.err, "vedetta: %v; see vedetta --help\n", err)
		return 2
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(io)
	var status exitStatus
	switch err := parsed.Run(); {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	case errors.Is(err, errUsage):
		fmt.Fprintln(io.err, "vedetta:", err)
		return 2
	default:
		fmt.Fprintln(io.err, "vedetta:", err)
		return 1
	}
}
