package bed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// A Queued is a message in Postfix's queue, as "postqueue -j" shows it.
type Queued struct {
	Queue      string `json:"queue_name"` // active, deferred, hold, …
	ID         string `json:"queue_id"`
	Arrival    int64  `json:"arrival_time"` // seconds since 1970
	Size       int    `json:"message_size"`
	Sender     string `json:"sender"`
	Recipients []struct {
		Address string `json:"address"`
		Reason  string `json:"delay_reason"`
	} `json:"recipients"`
}

// Postqueue lists the queue.
func (b *Bed) Postqueue() ([]Queued, error) {
	out, err := b.Command("postqueue", "-j").Output()
	if err != nil {
		return nil, fmt.Errorf("postqueue: %w", err)
	}
	var all []Queued
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var q Queued
		if err := d.Decode(&q); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("postqueue: %w", err)
		}
		all = append(all, q)
	}
}

// Mailbox returns the messages in the inbox of a user of the bed.
func (b *Bed) Mailbox(address string) ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(b.Dir, "mail", address, "new", "*"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		all = append(all, string(text))
	}
	return all, nil
}

// WaitLog waits until Postfix has logged a line that matches, and returns it.
func (b *Bed) WaitLog(pattern string) string {
	b.t.Helper()
	return b.waitLine(b.MailLog, pattern)
}

func (b *Bed) waitLine(path, pattern string) string {
	b.t.Helper()
	re := regexp.MustCompile("(?m)^.*(?:" + pattern + ").*$")
	var found []byte
	b.Wait("a log line with "+pattern, func() bool {
		text, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		found = re.Find(text)
		return found != nil
	})
	return string(found)
}

// Wait waits until something has happened; the test fails if it has not within
// 15 seconds.
func (b *Bed) Wait(what string, happened func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !happened(); {
		if time.Now().After(deadline) {
			b.t.Fatalf("bed: waited 15 s for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
