package queue

import (
	"net"
	"strings"
	"testing"

	"github.com/d--j/go-milter"
	"github.com/google/go-cmp/cmp"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// An editor changes a message in every way that leaves pointers in its file.
type editor struct{ milter.NoOpMilter }

func (editor) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	for _, err := range []error{
		m.InsertHeader(0, "X-First", "inserted\n\tin two lines"),
		m.ChangeHeader(1, "Subject", strings.Repeat("changed to be longer ", 20)),
		m.ChangeHeader(1, "Date", ""),
		m.AddHeader("X-Last", "added"),
		m.AddHeader("X-Very-Last", "added"),
		m.ChangeHeader(1, "X-Last", "changed after it was added"),
		m.AddRecipient("<added@ok.test>", ""),
		m.ReplaceBody(strings.NewReader("Another body.\r\n")),
	} {
		if err != nil {
			return nil, err
		}
	}
	return milter.RespAccept, nil
}

// The header of a message is the one that will be delivered, whatever milters
// did to it.
func TestPostfixEditedHeader(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := milter.NewServer(milter.WithMilter(func() milter.Milter { return editor{} }),
		milter.WithActions(milter.OptAddHeader|milter.OptChangeHeader|milter.OptAddRcpt|milter.OptChangeBody))
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })

	b, _ := start(t, bed.Options{Main: []string{"smtpd_milters = inet:" + l.Addr().String()}})
	q := postfixQueue(b)
	send(t, b, 1, alice, held)
	settled(b, 1)
	m := find(t, q, ofAlice, 1)[0]
	if m.Rcpts != 2 {
		t.Errorf("got %d recipients, want 2", m.Rcpts)
	}
	header, err := q.Headers(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	want, err := b.Command("postcat", "-q", "-h", m.ID).Output()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(header), string(want)); diff != "" {
		t.Errorf("header (-got +want):\n%s", diff)
	}
	if !strings.Contains(string(header), "\nX-Last: changed after") || strings.Contains(string(header), "\nDate:") {
		t.Errorf("the milter changed nothing: %q", header)
	}
}
