package enforce

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// An AddressHook is a program of the operator's that takes the mail of an
// outgoing address elsewhere, or holds it up, while the address is listed, and
// lets it go again. There is no shell between: in the arguments {state} is
// "listed" or "clear", {address} the address, {lists} the names of the lists
// with commas between, and {exposure} a number from 0 to 1. It may be run twice
// for the same, after a crash.
type AddressHook struct {
	Command []string
	Timeout time.Duration // 0 means ten seconds
}

// An AddressChange is what the hook is told.
type AddressChange struct {
	Address  string
	Listed   bool
	Lists    []string
	Exposure float64
}

// Check says what is wrong with the command.
func (h AddressHook) Check() error {
	if len(h.Command) == 0 || strings.Contains(h.Command[0], "{") {
		return errors.New("want a program and its arguments")
	}
	text := strings.Join(h.Command[1:], " ")
	if !strings.Contains(text, "{address}") || !strings.Contains(text, "{state}") {
		return errors.New("want {address} and {state} among the arguments: the program must know what to do, and undo")
	}
	return nil
}

// Run runs the program and waits for its end.
func (h AddressHook) Run(ctx context.Context, c AddressChange) error {
	state := "clear"
	if c.Listed {
		state = "listed"
	}
	words := strings.NewReplacer("{state}", state, "{address}", c.Address, "{lists}", strings.Join(c.Lists, ","),
		"{exposure}", strconv.FormatFloat(c.Exposure, 'f', 2, 64))
	argv := []string{h.Command[0]}
	for _, arg := range h.Command[1:] {
		argv = append(argv, words.Replace(arg))
	}
	if err := (hook{argv: argv, timeout: h.Timeout}).run(ctx); err != nil {
		return fmt.Errorf("%s, %s %s: %w", argv[0], c.Address, state, err)
	}
	return nil
}
