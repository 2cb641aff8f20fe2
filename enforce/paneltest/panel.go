// Package paneltest holds fakes of cPanel & WHM and of Plesk: the commands
// uapi, whmapi1 and plesk, and WHM's JSON API over HTTPS.
//
// They are fakes. They were written from the vendors' documentation, never
// from what our own client sends, and are stricter than the panels: a
// parameter that is not documented, or one that is missing, is refused. What
// the documentation leaves open is marked "assumed".
package paneltest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A State is what a server with a panel has on it.
type State struct {
	Accounts  map[string]*Account // cPanel accounts, by name
	Domains   map[string]string   // domain → its cPanel account
	Resellers []string            // cPanel accounts that are resellers
	Mailboxes map[string]*Mailbox // by address
	Forwards  []Forward           // cPanel's
	Token     string              // WHM's, of root

	// AlreadyIsError has cPanel refuse to suspend what is suspended, and to
	// unsuspend what is not (assumed: the documentation does not say).
	AlreadyIsError bool
	// TellsLimit has Plesk's --info print a mailbox's limit (assumed).
	TellsLimit bool
	// ForgetsForwards has Plesk forget the addresses when forwarding is turned
	// off (assumed: the documentation does not say).
	ForgetsForwards bool

	Trouble Trouble
}

// An Account is a cPanel account.
type Account struct {
	Owner           string
	Suspended, Held bool // outgoing mail
}

// A Mailbox is a mailbox of either panel.
type Mailbox struct {
	Password string

	Suspended, Held, NoLogin bool // cPanel

	Limit      string // Plesk: a number, -1 or default
	Forwarding bool   // Plesk
	Addresses  []string
}

// A Forward is one forwarder of cPanel's.
type Forward struct{ Dest, Forward string }

// A Trouble is what is wrong with a panel.
type Trouble string

// The troubles. The zero Trouble is none.
const (
	Fail        Trouble = "fail"         // refuses everything, with a reason
	Hang        Trouble = "hang"         // never answers
	Garbage     Trouble = "garbage"      // answers something else
	Warnings    Trouble = "warnings"     // warns before it answers, once with what looks like an answer
	Exit        Trouble = "exit"         // commands: ends with status 2
	Half        Trouble = "half"         // half an answer
	OtherCall   Trouble = "other-call"   // the answer to another call
	Flood       Trouble = "flood"        // an answer without end
	Nothing     Trouble = "nothing"      // an empty answer
	Unauthorize Trouble = "unauthorized" // HTTPS: 401
	Broken      Trouble = "broken"       // HTTPS: 500
	Redirect    Trouble = "redirect"     // HTTPS: 302 to another host
)

// Reason is what a panel in trouble complains of.
const Reason = "The disk quota of “/var/cpanel” is exceeded."

// A Panel is a fake server, in a directory that its programs share.
type Panel struct{ dir string }

// programs are the commands of the panels.
var programs = []string{"uapi", "whmapi1", "plesk"}

// New makes a fake in dir, which must be empty. Its programs are links to the
// running one, which must call [Act] before it does anything else.
func New(dir string, state State) (*Panel, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for _, name := range programs {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	p := &Panel{dir}
	return p, p.Edit(func(s *State) { *s = state })
}

// Program is the path of the command of that name.
func (p *Panel) Program(name string) string { return filepath.Join(p.dir, name) }

// UserDomains writes cPanel's list of domains and returns its path.
func (p *Panel) UserDomains() (string, error) {
	s, err := p.State()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for domain, user := range s.Domains {
		b.WriteString(domain + ": " + user + "\n")
	}
	b.WriteString("*: nobody\n")
	path := filepath.Join(p.dir, "userdomains")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// State is what is on the server now.
func (p *Panel) State() (State, error) {
	var s State
	err := p.locked(func() error { return p.load(&s) })
	return s, err
}

// Edit changes what is on the server, as an operator would.
func (p *Panel) Edit(change func(*State)) error {
	return p.locked(func() error {
		var s State
		if err := p.load(&s); err != nil {
			return err
		}
		change(&s)
		return p.save(s)
	})
}

// Calls are the calls so far: command lines as lists of arguments, without the
// program's directory, or the method, the path and the body of a request.
func (p *Panel) Calls() ([][]string, error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "calls"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	var calls [][]string
	for text := range strings.Lines(string(text)) {
		var call []string
		if err := json.Unmarshal([]byte(text), &call); err != nil {
			return nil, err
		}
		calls = append(calls, call)
	}
	return calls, err
}

func (p *Panel) load(s *State) error {
	text, err := os.ReadFile(filepath.Join(p.dir, "state"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(text, s)
}

func (p *Panel) save(s State) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	fresh := filepath.Join(p.dir, "state.new")
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, filepath.Join(p.dir, "state"))
}

// locked runs do while no other process of this panel does.
func (p *Panel) locked(do func() error) error {
	f, err := os.OpenFile(filepath.Join(p.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	defer syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	return do()
}

// record writes a call down.
func (p *Panel) record(call []string) error {
	text, err := json.Marshal(call)
	if err != nil {
		return err
	}
	return p.locked(func() error {
		f, err := os.OpenFile(filepath.Join(p.dir, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write(append(text, '\n'))
		return err
	})
}

// Act makes the running program one of the panel's commands if it was started
// by that name, and does not return then. A test calls it from a variable:
//
//	var _ = paneltest.Act()
func Act() bool {
	name := filepath.Base(os.Args[0])
	if !slices.Contains(programs, name) {
		return false
	}
	p := &Panel{filepath.Dir(os.Args[0])}
	syscall.Exit(p.command(name, os.Args[1:])) // os.Exit would wait a second for the race detector's report
	return true
}

// command is one run of a command; it returns its exit status.
func (p *Panel) command(name string, args []string) int {
	s, err := p.State()
	if err == nil {
		err = p.record(append([]string{name}, args...))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		return 3
	}
	switch s.Trouble {
	case Hang:
		time.Sleep(time.Minute)
	case Exit:
		fmt.Fprintln(os.Stderr, "Can't locate Cpanel/JSON.pm in @INC")
		return 2
	case Garbage:
		fmt.Println("<html>It works!</html>\n{not json}")
		return 0
	case Nothing:
		return 0
	case Flood:
		for line := []byte(strings.Repeat("0123456789", 1000) + "\n"); ; {
			if _, err := os.Stdout.Write(line); err != nil {
				return 1
			}
		}
	}
	if name == "plesk" {
		return p.plesk(args)
	}
	answer, status := p.cpanelCommand(name, args)
	switch s.Trouble {
	case Fail:
		if name == "whmapi1" {
			status = 1 // assumed; uapi ends with 0
		}
	case Warnings:
		fmt.Println("Use of uninitialized value $domain in hash element at /usr/local/cpanel/Cpanel/Email.pm line 17.")
		fmt.Println(`{"result":{"status":1},"metadata":{"result":1}}`)
		fmt.Println("warn [uapi] {")
	case Half:
		answer = answer[:len(answer)/2]
	}
	fmt.Println(answer)
	return status
}
