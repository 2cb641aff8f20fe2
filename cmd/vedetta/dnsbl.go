package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/vedetta-watch/vedetta/internal/app"
	"github.com/vedetta-watch/vedetta/internal/config"
)

type dnsblCmd struct {
	Check dnsblCheckCmd `cmd:"" help:"Ask every block list about addresses and domains, now."`
	Lists dnsblListsCmd `cmd:"" help:"Test every block list: which can be believed, which need a key."`

	History dnsblHistoryCmd `cmd:"" help:"Show what changed on block lists, as the running service saw it."`
	Removal dnsblRemovalCmd `cmd:"" help:"Say how an address comes off the lists that have it, with a text to ask for it, or why not to ask yet."`
}

// dnsblFlags are the options of commands that ask block lists.
type dnsblFlags struct {
	Config   string `short:"c" env:"VEDETTA_CONFIG" help:"Configuration file, for keys, own lists and resolvers; /etc/vedetta/vedetta.yaml if it is there." placeholder:"FILE"`
	Resolver string `help:"Recursive resolver to ask instead of the configured ones or the system's." placeholder:"HOST:PORT"`
	JSON     bool   `help:"Print JSON, one object a line."`
}

// options reads the configuration. What is wrong with the resolver goes to
// notes.
func (f dnsblFlags) options(notes io.Writer) (app.DNSBLOptions, error) {
	o := app.DNSBLOptions{Config: config.Default(), Resolver: f.Resolver, Note: func(text string) { fmt.Fprintln(notes, "vedetta: note:", clean(text)) }}
	path := f.Config
	if path == "" {
		path = "/etc/vedetta/vedetta.yaml"
		switch _, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist):
			return o, nil
		case err != nil:
			o.Note(fmt.Sprintf("%s is not used: %v; keys of lists are in it", path, err))
			return o, nil
		}
	}
	c, err := config.Load(path)
	o.Config = c
	return o, err
}

// An exitStatus ends a command with that code, and nothing more to say.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// The exit codes of a check, which are those of a Nagios plugin too.
const (
	exitListed  exitStatus = 1
	exitUnknown exitStatus = 3
)

type dnsblCheckCmd struct {
	dnsblFlags
	Nagios   bool     `help:"Print one line for Nagios and its like; listed is WARNING, could not tell UNKNOWN."`
	Subjects []string `arg:"" name:"subject" help:"IPv4 or IPv6 addresses, domains, e-mail addresses."`
}

// Help says what the exit codes mean.
func (*dnsblCheckCmd) Help() string {
	return "Exit codes: 0 on no list, 1 on at least one, 3 nobody could tell about one of them, 2 wrong usage. A list is believed only " +
		"if it passes its health test right before; what it lists is asked of its own servers once more."
}

func (cmd *dnsblCheckCmd) Run(ctx context.Context, std std) error {
	status, err := cmd.check(ctx, std)
	switch {
	case err != nil && cmd.Nagios && !errors.Is(err, errUsage):
		fmt.Fprintln(std.out, nagiosSafe("DNSBL UNKNOWN - "+err.Error()))
		return exitUnknown
	case err != nil:
		return err
	case status != 0:
		return status
	}
	return nil
}

func (cmd *dnsblCheckCmd) check(ctx context.Context, std std) (exitStatus, error) {
	if cmd.JSON && cmd.Nagios {
		return 0, fmt.Errorf("%w: --json or --nagios, not both", errUsage)
	}
	subjects, err := app.DNSBLSubjects(cmd.Subjects)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUsage, err)
	}
	o, err := cmd.options(std.err)
	if err != nil {
		return 0, err
	}
	results, err := app.DNSBLCheck(ctx, o, subjects)
	if err != nil {
		return 0, err
	}
	at := map[string]int{}
	var r listReport
	for _, s := range subjects {
		at[s.String()] = len(r)
		r = append(r, subjectReport{name: s.String()})
	}
	for _, result := range results {
		row := listRow{list: result.List, status: result.Status.String(), meaning: result.Meaning, reason: result.Reason, delist: result.Delist}
		row.codes = strings.Join(result.Codes, ", ")
		r[at[result.Subject.String()]].add(row)
	}
	switch {
	case cmd.JSON:
		err = jsonLines(std.out, results)
	case cmd.Nagios:
		_, err = fmt.Fprintln(std.out, r.nagios())
	default:
		err = r.write(std.out)
	}
	return r.status(), err
}

// A listReport is what a check found out, by subject.
type listReport []subjectReport

// A subjectReport is what the lists say about one subject.
type subjectReport struct {
	name            string
	clean           int // lists that it is not on
	listed, unknown []listRow
}

// A listRow is what one list says.
type listRow struct{ list, status, codes, meaning, reason, delist string }

func (s *subjectReport) add(row listRow) {
	switch row.status {
	case "listed":
		s.listed = append(s.listed, row)
	case "clean":
		s.clean++
	default:
		s.unknown = append(s.unknown, row)
	}
}

// status is the exit code.
func (r listReport) status() exitStatus {
	status := exitStatus(0)
	for _, s := range r {
		switch {
		case len(s.listed) > 0:
			return exitListed
		case s.clean == 0:
			status = exitUnknown
		}
	}
	return status
}

// jsonLines writes one object a line.
func jsonLines[T any](w io.Writer, objects []T) error {
	buffered := bufio.NewWriter(w)
	enc := json.NewEncoder(buffered)
	for i := range objects {
		if err := enc.Encode(&objects[i]); err != nil {
			return err
		}
	}
	return buffered.Flush()
}

// write is for people: what is listed in full, what could not be told by its
// reason, and how many lists have nothing.
func (r listReport) write(out io.Writer) error {
	for i, s := range r {
		if i > 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintf(out, "%s: %s\n", s.name, s.summary())
		w := table(out)
		for _, row := range s.listed {
			fmt.Fprintf(w, "  listed\t%s\t%s (%s)\n", row.list, clean(row.meaning), row.codes)
			if row.reason != "" {
				fmt.Fprintf(w, "\t\t%s\n", clean(row.reason))
			}
			if row.delist != "" {
				fmt.Fprintf(w, "\t\tremoval: %s\n", clean(row.delist))
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for _, group := range byReason(s.unknown) {
			fmt.Fprintf(w, "  unknown\t%s\t%s\n", clean(group.reason), strings.Join(group.lists, ", "))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// summary says it in a line.
func (s subjectReport) summary() string {
	switch {
	case len(s.listed) > 0:
		return fmt.Sprintf("on %d of %d lists; clean on %d, could not tell on %d", len(s.listed), s.lists(), s.clean, len(s.unknown))
	case s.clean == 0 && len(s.unknown) == 0:
		return "could not tell: no list takes its kind"
	case s.clean == 0:
		return fmt.Sprintf("could not tell on any of %d lists", len(s.unknown))
	}
	return fmt.Sprintf("on no list; clean on %d, could not tell on %d", s.clean, len(s.unknown))
}

func (s subjectReport) lists() int { return len(s.listed) + s.clean + len(s.unknown) }

// A reasonGroup is the lists that could not tell for the same reason.
type reasonGroup struct {
	reason string
	lists  []string
}

// byReason groups rows, in the order of the first of each.
func byReason(rows []listRow) []reasonGroup {
	var groups []reasonGroup
	at := map[string]int{}
	for _, row := range rows {
		i, ok := at[row.reason]
		if !ok {
			i = len(groups)
			at[row.reason] = i
			groups = append(groups, reasonGroup{reason: row.reason})
		}
		groups[i].lists = append(groups[i].lists, row.list)
	}
	return groups
}

// nagios is the line that monitoring plugins print, with performance data.
func (r listReport) nagios() string {
	var found, blind []string
	listed, clean, unknown := 0, 0, 0
	for _, s := range r {
		listed, clean, unknown = listed+len(s.listed), clean+s.clean, unknown+len(s.unknown)
		var lists []string
		for _, row := range s.listed {
			lists = append(lists, row.list)
		}
		switch {
		case len(lists) > 0:
			found = append(found, s.name+" is on "+strings.Join(lists, ", "))
		case s.clean == 0:
			blind = append(blind, s.name)
		}
	}
	text := "OK - on no list"
	switch {
	case len(found) > 0:
		text = "WARNING - " + strings.Join(found, "; ")
	case len(blind) > 0:
		text = "UNKNOWN - nobody could tell about " + strings.Join(blind, ", ")
	}
	return nagiosSafe("DNSBL "+text) + fmt.Sprintf(" | listed=%d clean=%d unknown=%d", listed, clean, unknown)
}

// nagiosSafe keeps text on one line, and out of the performance data, which
// begin with a bar.
func nagiosSafe(text string) string { return strings.ReplaceAll(clean(text), "|", "/") }

type dnsblListsCmd struct{ dnsblFlags }

func (cmd *dnsblListsCmd) Run(ctx context.Context, std std) error {
	o, err := cmd.options(std.err)
	if err != nil {
		return err
	}
	health, err := app.DNSBLHealth(ctx, o)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return jsonLines(std.out, health)
	}
	w := table(std.out)
	fmt.Fprintln(w, "LIST\tSTATE\tTIER\tZONE\tWHAT IS WRONG")
	for _, h := range health {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", h.List, h.State, h.Tier, h.Zone, clean(h.Text))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(std.out, "\nTERMS")
	w = table(std.out)
	for _, h := range health {
		if h.Terms != "" {
			fmt.Fprintf(w, "%s\t%s\n", h.List, clean(h.Terms))
		}
	}
	return w.Flush()
}

type dnsblHistoryCmd struct {
	configFlag
	List    string `help:"Only of this list." placeholder:"NAME"`
	Limit   int    `default:"100" help:"How many changes, the newest."`
	JSON    bool   `help:"Print JSON, one object a line."`
	Subject string `arg:"" optional:"" help:"Only of this address, domain or network."`
}

func (cmd *dnsblHistoryCmd) Run(ctx context.Context, std std) error {
	if cmd.Limit < 1 || cmd.Limit > 1000 {
		return fmt.Errorf("%w: --limit is from 1 to 1000", errUsage)
	}
	client, err := cmd.client()
	if err != nil {
		return err
	}
	changes, err := client.ListHistory(ctx, app.ListQuery{Subject: cmd.Subject, List: cmd.List, Limit: cmd.Limit})
	if err != nil {
		return err
	}
	if cmd.JSON {
		return jsonLines(std.out, changes)
	}
	w := table(std.out)
	fmt.Fprintln(w, "TIME\tLIST\tCHANGE\tSUBJECT\tWHAT")
	for _, c := range changes {
		what := c.Text
		if c.Meaning != "" {
			what = c.Meaning
		}
		if len(c.Codes) > 0 {
			what += " (" + strings.Join(c.Codes, ", ") + ")"
		}
		if c.Reason != "" {
			what += ": " + c.Reason
		}
		kind := c.Kind
		if c.State != "" {
			kind = c.State
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", stamp(c.Time), clean(c.List), clean(kind), clean(c.Subject), clean(what))
	}
	return w.Flush()
}

type dnsblRemovalCmd struct {
	configFlag
	JSON    bool   `help:"Print JSON."`
	Subject string `arg:"" help:"Address or domain."`
	List    string `arg:"" optional:"" help:"Only from this list."`
}

// exitNotYet says that no list should be asked now.
const exitNotYet exitStatus = 1

func (cmd *dnsblRemovalCmd) Run(ctx context.Context, std std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	removals, err := client.ListRemoval(ctx, app.ListQuery{Subject: cmd.Subject, List: cmd.List})
	if err != nil {
		return err
	}
	if cmd.JSON {
		if err := json.NewEncoder(std.out).Encode(removals); err != nil {
			return err
		}
	} else {
		cmd.print(std.out, removals)
	}
	if len(removals.NotYet) > 0 {
		return exitNotYet
	}
	return nil
}

func (cmd *dnsblRemovalCmd) print(w io.Writer, removals app.ListRemovals) {
	if len(removals.Lists) == 0 {
		fmt.Fprintf(w, "%s: nothing to remove, as far as it is watched\n", clean(removals.Subject))
	}
	for _, why := range removals.NotYet {
		fmt.Fprintf(w, "do not ask yet: %s\n", clean(why))
	}
	for _, r := range removals.Lists {
		fmt.Fprintf(w, "\n%s (%s)\n", clean(r.Title), clean(r.List))
		for _, field := range []struct{ name, text string }{{"page", r.Page}, {"wait", r.Wait}, {"note", r.Notes}} {
			if field.text != "" {
				fmt.Fprintf(w, "  %s: %s\n", field.name, clean(field.text))
			}
		}
		if r.Text == "" {
			continue
		}
		fmt.Fprintln(w, "  text to paste:")
		for line := range strings.Lines(r.Text) {
			fmt.Fprintln(w, strings.TrimRight("    "+clean(strings.TrimSuffix(line, "\n")), " "))
		}
	}
}
