// Command bench measures what docs/benchmarks.md records.
//
//	go run ./test/bench                      replay against pflogsumm and eximstats
//	go run ./test/bench gate -kind policy    the gate of a "vedetta serve" that it starts and loads; also milter, exim
//	go run ./test/bench mail                 what the gate costs a real Postfix
//	go run ./test/bench lists                a sweep over block lists against a loop of dns.Client.Exchange
//
// All say what was measured, on which machine, and whether the goals are met;
// the exit status is 1 if one is missed or nothing could be measured.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) > 0 {
		switch args[0] { // what this program starts itself for
		case "bare":
			return serveBare(ctx, args[1:], out)
		case "feed":
			return serveFeed(ctx, args[1:], out)
		case "list-server":
			return serveLists(ctx, out)
		case "exchange":
			return exchangeAll(ctx, args[1:])
		}
	}
	fmt.Fprintf(out, "%s, %d CPUs, %s/%s%s\n", runtime.Version(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, busy())
	if len(args) > 0 && args[0] == "gate" {
		return runGate(ctx, args[1:], out)
	}
	if len(args) > 0 && args[0] == "mail" {
		return runMail(ctx, args[1:], out)
	}
	if len(args) > 0 && args[0] == "lists" {
		return runLists(ctx, args[1:], out)
	}
	if len(args) > 0 && args[0] == "replay" {
		args = args[1:]
	}
	return runReplay(ctx, args, out)
}

// busy says how many processes others have kept running here in the last
// minute, where the system tells: figures of a machine that is shared are not
// this program's alone.
func busy() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	load, _, _ := strings.Cut(string(text), " ")
	return ", load average " + load + " before"
}

// verdict says whether a goal is met.
func verdict(met bool) string {
	if met {
		return "met"
	}
	return "MISSED"
}
