package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

// A duel is one log and two programs that read it.
type duel struct {
	format   loggen.Format
	rival    string
	wall     float64 // times as fast by wall clock that is the goal
	cpu      float64 // times less CPU time that is the goal
	rivalCmd []string
	vedetta  []string
}

// maxRSS is the goal for resident memory, in bytes.
const maxRSS = 200 << 20

func runReplay(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("replay", flag.ContinueOnError)
	lines := flags.Int("lines", 500_000, "lines of each log")
	accounts := flags.Int("accounts", 2000, "accounts that send")
	rounds := flags.Int("rounds", 7, "rounds, at least 5 to be recorded")
	vedetta := flags.String("vedetta", "", "`program` to measure; built from this module if empty")
	eximstats := flags.String("eximstats", "", "`program` to compare with; found or fetched if empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *vedetta == "" {
		*vedetta = filepath.Join(dir, "vedetta")
		if err := build(ctx, *vedetta); err != nil {
			return err
		}
	}
	duels := []duel{
		{format: loggen.Postfix, rival: "pflogsumm", wall: 20, cpu: 10},
		{format: loggen.Exim, rival: "eximstats", wall: 10, cpu: 5},
	}
	var missed error
	for _, d := range duels {
		program, err := find(ctx, d.rival, *eximstats, dir)
		if err != nil {
			missed = errors.Join(missed, err)
			continue
		}
		log := filepath.Join(dir, string(d.format)+".log")
		if err := writeLog(log, d.format, *lines, *accounts); err != nil {
			return err
		}
		d.rivalCmd = []string{program, log}
		d.vedetta = []string{*vedetta, "replay", "--json", log}
		missed = errors.Join(missed, d.fight(ctx, *rounds, out))
	}
	return missed
}

func build(ctx context.Context, path string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, "github.com/vedetta-watch/vedetta/cmd/vedetta")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, text)
	}
	return nil
}

// find looks for a rival on the machine. Exim's package cannot be installed
// beside Postfix, so eximstats is taken out of it.
func find(ctx context.Context, name, given, dir string) (string, error) {
	if name == "eximstats" && given != "" {
		return given, nil
	}
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	if name != "eximstats" {
		return "", fmt.Errorf("%s is not installed", name)
	}
	script := "apt-get download -qq exim4-base && dpkg -x exim4-base_*.deb exim"
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	cmd.Dir = dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("eximstats cannot be fetched: %w\n%s", err, text)
	}
	return filepath.Join(dir, "exim/usr/sbin/eximstats"), nil
}

// writeLog writes ordinary traffic with two hijacks in it.
func writeLog(path string, format loggen.Format, lines, accounts int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	err = loggen.Write(f, loggen.Options{
		Format: format, Lines: lines, Accounts: accounts, Shops: accounts / 50, Seed: 1,
		Hijacks: []loggen.Hijack{
			{Account: accounts / 3, After: 20 * time.Hour, Messages: 200, Rcpts: 3},
			{Account: accounts / 2, After: 30 * time.Hour, Every: 20 * time.Second, Messages: 100},
		},
	})
	return errors.Join(err, f.Close())
}

// fight runs both programs in turn, so that whatever else the machine does
// hits both, and compares the medians.
func (d duel) fight(ctx context.Context, rounds int, out io.Writer) error {
	var ours, theirs []cost
	for range rounds {
		our, err := measure(ctx, d.vedetta)
		if err != nil {
			return err
		}
		their, err := measure(ctx, d.rivalCmd)
		if err != nil {
			return err
		}
		ours, theirs = append(ours, our), append(theirs, their)
	}
	return d.tell(ours, theirs, out)
}

// tell prints both programs' costs, and returns an error if a goal is missed.
func (d duel) tell(ours, theirs []cost, out io.Writer) error {
	wall := median(theirs, cost.wallSeconds) / median(ours, cost.wallSeconds)
	cpu := median(theirs, cost.cpuSeconds) / median(ours, cost.cpuSeconds)
	peak := slices.MaxFunc(ours, func(a, b cost) int { return cmp.Compare(a.rss, b.rss) }).rss

	fmt.Fprintf(out, "\n%s log, %d rounds, interleaved; medians\n", d.format, len(ours))
	fmt.Fprintf(out, "%-16s %10s %10s %14s\n", "", "wall s", "CPU s", "peak RSS MB")
	for _, row := range []struct {
		name  string
		costs []cost
	}{{"vedetta replay", ours}, {d.rival, theirs}} {
		fmt.Fprintf(out, "%-16s %10.3f %10.3f %14.1f\n", row.name,
			median(row.costs, cost.wallSeconds), median(row.costs, cost.cpuSeconds), median(row.costs, cost.megabytes))
	}
	goals := []struct {
		text string
		met  bool
	}{
		{fmt.Sprintf("%.1f times as fast by wall clock, goal %g", wall, d.wall), wall >= d.wall},
		{fmt.Sprintf("%.1f times less CPU time, goal %g", cpu, d.cpu), cpu >= d.cpu},
		{fmt.Sprintf("%.1f MB at most, goal below %d", float64(peak)/(1<<20), maxRSS>>20), peak < maxRSS},
	}
	var missed []string
	for _, goal := range goals {
		fmt.Fprintf(out, "%s: %s\n", verdict(goal.met), goal.text)
		if !goal.met {
			missed = append(missed, goal.text)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("%s: missed: %s", d.rival, strings.Join(missed, "; "))
	}
	return nil
}

// A cost is what one run of a program took.
type cost struct {
	wall, cpu time.Duration
	rss       int64 // bytes, at the highest
}

func (c cost) wallSeconds() float64 { return c.wall.Seconds() }
func (c cost) cpuSeconds() float64  { return c.cpu.Seconds() }
func (c cost) megabytes() float64   { return float64(c.rss) / (1 << 20) }

// measure runs a program to its end, its output thrown away.
func measure(ctx context.Context, args []string) (cost, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var mistakes strings.Builder
	cmd.Stderr = &mistakes
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, mistakes.String())
	}
	return costOf(cmd.ProcessState, wall)
}

// costOf is what a program that ended took.
func costOf(state *os.ProcessState, wall time.Duration) (cost, error) {
	usage, ok := state.SysUsage().(*syscall.Rusage)
	if !ok {
		return cost{}, errors.New("this system does not tell what a process used")
	}
	// Linux counts in KiB, and from the fork on: no less than this program holds.
	return cost{wall, state.UserTime() + state.SystemTime(), usage.Maxrss * 1024}, nil
}

// median is the middle one of the values that of takes from the costs.
func median(costs []cost, of func(cost) float64) float64 {
	var values []float64
	for _, c := range costs {
		values = append(values, of(c))
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 0 {
		return (values[middle-1] + values[middle]) / 2
	}
	return values[middle]
}
