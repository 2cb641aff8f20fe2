package dnsbl

import (
	"context"
	"fmt"
	"time"
)

// A TaskKind says what a question is for.
type TaskKind uint8

// The kinds of tasks.
const (
	Probe        TaskKind = iota // of a health test
	Poll                         // is the subject listed?
	Confirmation                 // is it really? Asked of an authoritative server
	Explanation                  // what does the list say about the entry (TXT)?
	Once                         // is the subject of an inquiry listed?
)

var taskTexts = [...]string{"probe", "poll", "confirmation", "explanation", "inquiry"}

// String returns the kind in a word.
func (k TaskKind) String() string { return taskTexts[k] }

// A Task is one question that is due. Its name holds the key of a keyed list,
// so it is kept to itself; printing a Task is safe.
type Task struct {
	Kind    TaskKind
	List    string  // the name of the list
	Subject Subject // zero for a probe

	zone, name    string
	typ           Type
	authoritative bool
	issued        time.Time
	on            *watched
	pair          *pair
	inquiry       *inquiry
	id            uint32 // of the question about the pair, of the test, or of the listing
	probe         int    // index in the test
}

// Ask asks the question.
func (t Task) Ask(ctx context.Context, r Resolver) Answer {
	if t.authoritative {
		return r.Confirm(ctx, t.zone, t.name, t.typ)
	}
	return r.Lookup(ctx, t.name, t.typ)
}

// String says what is asked, without the key.
func (t Task) String() string {
	if t.Kind == Probe {
		return fmt.Sprintf("%s of %s", t.Kind, t.List)
	}
	return fmt.Sprintf("%s of %s on %s", t.Kind, t.Subject, t.List)
}

// GoString is String.
func (t Task) GoString() string { return t.String() }
