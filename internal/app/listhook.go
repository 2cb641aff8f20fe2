package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/store"
)

// A listHook has the operator's program take the mail of a listed address
// elsewhere, and bring it back. What it was last told is kept, so that a restart
// repeats nothing. The loop says what is wanted; run does it.
type listHook struct {
	p        *pipeline
	program  enforce.AddressHook
	exposure float64 // from which on an address is listed to the program
	acts     bool    // mode is enforce
	wanted   chan map[string]enforce.AddressChange
	told     map[string]bool      // addresses that the program was last told are listed; run's
	noted    map[string]bool      // what it would have been told while observing; run's
	before   map[string]bool      // addresses that it may have been told are listed; the loop's
	failed   map[string]time.Time // when it failed about an address; run's
	eye      eye
}

// hookKey is where the addresses stand that the program was told are listed.
const hookKey = "listed-addresses"

// hookAgain is how long after a failure the program is run again.
const hookAgain = 5 * time.Minute

// newListHook returns nil if there is no program.
func newListHook(c config.Config, p *pipeline) (*listHook, error) {
	h := c.DNSBL.Hook
	if len(h.Command) == 0 {
		return nil, nil
	}
	program := enforce.AddressHook{Command: h.Command, Timeout: time.Duration(h.Timeout)}
	if err := program.Check(); err != nil {
		return nil, fmt.Errorf("dnsbl.hook.command: %w", err)
	}
	return &listHook{
		p: p, program: program, exposure: h.Exposure, acts: c.Mode == config.ModeEnforce, before: map[string]bool{},
		wanted: make(chan map[string]enforce.AddressChange, 1), told: map[string]bool{}, noted: map[string]bool{}, failed: map[string]time.Time{},
		eye: eye{kind: "enforcement", subject: "hook for listed addresses", part: "hook for listed addresses"},
	}, nil
}

func (h *listHook) restore(ctx context.Context) error {
	text, err := h.p.store.Setting(ctx, hookKey)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, &h.told); err != nil {
		return err
	}
	h.noted, h.before = maps.Clone(h.told), maps.Clone(h.told)
	return nil
}

// unwatched is the addresses that the program was told are listed, and that are
// watched no more: nobody else would ever tell it that they are clear.
func (h *listHook) unwatched(isWatched func(address string) bool) map[string]enforce.AddressChange {
	changes := map[string]enforce.AddressChange{}
	for address, listed := range h.before {
		if listed && !isWatched(address) {
			changes[address] = enforce.AddressChange{Address: address}
		}
	}
	return changes
}

// want says where the addresses stand. Only the newest word counts.
func (h *listHook) want(changes map[string]enforce.AddressChange) {
	select {
	case <-h.wanted:
	default:
	}
	h.wanted <- changes // there is room: nobody else sends
}

// run carries out what is wanted until ctx ends.
func (h *listHook) run(ctx context.Context) error {
	var wanted map[string]enforce.AddressChange
	again := time.NewTicker(time.Minute)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case wanted = <-h.wanted:
		case <-again.C:
		}
		h.carryOut(ctx, wanted)
	}
}

// addHookChange adds where an address stands with the hook.
func (l *listWatch) addHookChange(changes map[string]enforce.AddressChange, s dnsbl.Subject, all []dnsbl.Listing) {
	if l.hook == nil {
		return
	}
	if c, ok := l.hook.addressChange(s, all); ok && (l.isCertain(s) || !c.Listed) {
		changes[c.Address] = c
		if c.Listed {
			l.hook.before[c.Address] = true
		}
	}
}

// wantHook says to the hook where the addresses stand, those too that no list
// has any more.
func (l *listWatch) wantHook(changes map[string]enforce.AddressChange, now time.Time) {
	if l.hook == nil {
		return
	}
	l.hook.addClear(changes, l)
	if now.Sub(l.began) > forgottenAfter {
		maps.Copy(changes, l.hook.unwatched(l.isWatched))
	}
	l.hook.want(changes)
}

// addClear adds the addresses that the program was told are listed, and that no
// list has any more.
func (h *listHook) addClear(changes map[string]enforce.AddressChange, l *listWatch) {
	for address := range h.before {
		if _, ok := changes[address]; ok || !l.isWatched(address) {
			continue
		}
		s, _ := dnsbl.ParseSubject(address) // it is watched
		if c, ok := h.addressChange(s, l.watch.Listings(s)); ok && !c.Listed {
			changes[address] = c
		}
	}
}

// carryOut tells the program what it was not told yet.
func (h *listHook) carryOut(ctx context.Context, wanted map[string]enforce.AddressChange) {
	told := h.told
	if !h.acts {
		told = h.noted
	}
	for address, c := range wanted {
		if c.Listed == told[address] || time.Since(h.failed[address]) < hookAgain || ctx.Err() != nil {
			continue
		}
		if delete(h.failed, address); !h.change(ctx, c) {
			h.failed[address] = time.Now()
		}
	}
}

// change writes the intent down, runs the program, and writes down how it went.
// What cannot be written down is not done.
func (h *listHook) change(ctx context.Context, c enforce.AddressChange) (done bool) {
	if !h.acts {
		if h.note(ctx, store.WhatProposal, c, "mode is observe: the program was not run") != nil {
			return false
		}
		h.noted[c.Address] = c.Listed
		return true
	}
	if err := h.note(ctx, store.WhatIntent, c, ""); err != nil {
		h.blind(ctx, fmt.Errorf("not run about %s, for it cannot be written down: %w", c.Address, err))
		return false
	}
	if err := h.program.Run(context.WithoutCancel(ctx), c); err != nil { // it has a time-out of its own
		h.blind(ctx, err)
		_ = h.note(ctx, store.WhatOutcome, c, "failed: "+err.Error()) // the failure is told already
		return false
	}
	told := maps.Clone(h.told)
	if told[c.Address] = c.Listed; !c.Listed {
		delete(told, c.Address)
	}
	h.told = told
	h.p.log.Info("hook for listed addresses", "address", c.Address, "state", hookState(c), "why", hookWhy(c))
	if err := errors.Join(h.keepTold(ctx), h.note(ctx, store.WhatOutcome, c, "done")); err != nil {
		h.p.log.Error("hook for listed addresses: it was run, and will be again after a restart", "address", c.Address, "err", err)
		return true
	}
	h.p.sees(&h.eye)
	return true
}

// note writes a line of the journal.
func (h *listHook) note(ctx context.Context, what string, c enforce.AddressChange, outcome string) error {
	ctx, cancel := finish(ctx)
	defer cancel()
	return h.p.store.Note(ctx, store.Entry{Time: time.Now(), What: what, Who: "vedetta", Subject: c.Address,
		Action: "hook " + hookState(c), Why: hookWhy(c), Outcome: outcome})
}

// keepTold writes down what the program was told.
func (h *listHook) keepTold(ctx context.Context) error {
	text, err := json.Marshal(h.told)
	if err != nil {
		panic(err) // plain data
	}
	ctx, cancel := finish(ctx)
	defer cancel()
	return h.p.store.SetSetting(ctx, hookKey, text)
}

// blind tells that the program could not be run.
func (h *listHook) blind(ctx context.Context, why error) {
	ctx, cancel := finish(ctx)
	defer cancel()
	h.p.blind(ctx, &h.eye, why)
}

func hookState(c enforce.AddressChange) string {
	if c.Listed {
		return "listed"
	}
	return "clear"
}

func hookWhy(c enforce.AddressChange) string {
	if c.Listed {
		return fmt.Sprintf("exposure %.2f, on %s", c.Exposure, strings.Join(c.Lists, ", "))
	}
	return "on no list that counts any more, as far as it is watched"
}

// addressChange is where a watched address stands with the hook: listed from
// the exposure on that its confirmed listings are worth, and until no list that
// counts has it any more. In between nothing changes: a list that cannot be
// believed for a while frees nobody. What is only suspected, and lists that only
// inform, count for nothing.
func (h *listHook) addressChange(s dnsbl.Subject, all []dnsbl.Listing) (c enforce.AddressChange, ok bool) {
	if s.Kind() != dnsbl.IP4 && s.Kind() != dnsbl.IP6 {
		return c, false
	}
	c.Address = s.String()
	var counted []dnsbl.Listing
	for i := range all {
		if g := &all[i]; g.Tier > dnsbl.Inform && isOn(g) {
			c.Lists = append(c.Lists, g.List)
			counted = append(counted, *g)
		}
	}
	c.Exposure = dnsbl.Exposure(counted)
	c.Listed = len(c.Lists) > 0 && reached(c.Exposure, h.exposure)
	return c, c.Listed || len(c.Lists) == 0
}

// reached compares exposures, whatever their floating point says.
func reached(exposure, limit float64) bool { return exposure >= limit-1e-9 }
