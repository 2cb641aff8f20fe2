package hub

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

var noon = time.Date(2026, 3, 20, 12, 0, 0, 123456789, time.UTC)

func wholeEvent() mailq.Event {
	return mailq.Event{
		Time: noon, Kind: mailq.Submitted, Host: "mx1", Account: "alice@shop.test", Message: 1 << 63, QueueID: "4jXK971kgrz1SRpG",
		Sender: "alice@shop.test", Client: netip.MustParseAddr("2001:db8::7"), Size: 4711, Subject: "Your order", Script: "/home/u/x.php",
		Rcpts: 3, Counts: true, New: []mailq.Recipient{{Hash: 7, Domain: "ok.test"}, {Hash: 1<<64 - 1, Domain: "company.test"}},
		To:    mailq.Recipient{Hash: 9, Domain: "gone.test"},
		From:  netip.MustParseAddr("203.0.113.9"),
		Reply: mailq.Reply{Class: mailq.RecipientUnknown, Provider: "google", Code: 550, Enhanced: "5.1.1", Text: "no such user"},
		Into:  "bob@shop.test", Writer: mailq.Recipient{Hash: 11, Next: 12, Domain: "far.test"}, Method: "PLAIN", Service: "smtp",
	}
}

func TestBatchComesBack(t *testing.T) {
	want := Batch{
		Mark: nth(5, 6), Lost: 7, Events: []mailq.Event{wholeEvent(), {Time: noon, Kind: mailq.LoginFailed, Account: "bob@shop.test"}},
		Findings: []rules.Finding{{ID: "f-1", Rule: rules.Blind, Subject: "log", Time: noon, Evidence: []rules.Evidence{{Kind: "coverage", Text: "gone"}}}},
		Samples:  []mailq.QueueSample{{Time: noon, Host: "mx1", Total: 9, ByAccount: []mailq.Share{{Name: "alice@shop.test", Count: 4}}}},
	}
	sealed, err := Seal(&want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sealed.Open()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateApproxTime(0)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// While the key of recipients is replaced a batch carries both hashes, in fields of
// their own: the release before reads all else of it, and is read.
func TestBatchWithTwoHashes(t *testing.T) {
	e := wholeEvent()
	e.New[1].Next, e.To.Next = 5, 6
	sealed, err := Seal(&Batch{Mark: nth(1, 1), Events: []mailq.Event{e}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := sealed.Open()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(e.New, got.Events[0].New); diff != "" || got.Events[0].To != e.To {
		t.Errorf("(-want +got):\n%s%+v", diff, got.Events[0].To)
	}
	text, err := unpacker.DecodeAll(sealed.Body, nil)
	if err != nil {
		t.Fatal(err)
	}
	var before struct { // as the release before knows it
		Events []struct {
			Account string          `cbor:"4,keyasint,omitempty"`
			New     []wireRecipient `cbor:"14,keyasint,omitempty"`
			To      wireRecipient   `cbor:"15,keyasint,omitzero"`
		} `cbor:"2,keyasint,omitempty"`
	}
	if err := decoding.Unmarshal(text, &before); err != nil {
		t.Fatalf("the release before: %v", err)
	}
	if b := before.Events[0]; b.Account != "alice@shop.test" || len(b.New) != 2 || b.New[1].Hash != e.New[1].Hash || b.To.Hash != e.To.Hash {
		t.Errorf("the release before reads %+v", b)
	}
	for _, next := range [][]uint64{{1}, {1, 2, 3}} { // of no agent of ours
		w := toWire(&e)
		w.NewNext = next
		if got := w.event(); got.New[0].Next != 0 || got.New[1].Next != 0 {
			t.Errorf("%d second hashes of 2 recipients: %+v", len(next), got.New)
		}
	}
}

func TestBatchFromHostileAgent(t *testing.T) {
	b := Batch{Mark: nth(1, 1), Events: []mailq.Event{{
		Time: noon, Account: mailq.Account("eve\x1b[2J\u202e@shop.test"), Sender: strings.Repeat("x", 9999), Size: -1, Subject: "caf\xe9",
	}}}
	sealed, err := Seal(&b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sealed.Open()
	if err != nil {
		t.Fatal(err)
	}
	e := got.Events[0]
	if e.Account != "eve[2J@shop.test" || len(e.Sender) != maxName || e.Size != 0 || e.Subject != "caf\uFFFD" {
		t.Errorf("got %+v", e)
	}
}

func TestMalformedBatches(t *testing.T) {
	good, err := Seal(&Batch{Mark: nth(1, 1), Events: []mailq.Event{wholeEvent()}})
	if err != nil {
		t.Fatal(err)
	}
	many := Batch{Mark: nth(1, 1), Events: make([]mailq.Event, MaxEvents+1)}
	tooMany, err := Seal(&many)
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Sealed{
		"no number":       {Body: good.Body},
		"empty":           {Mark: good.Mark},
		"cut":             {good.Mark, good.Body[:len(good.Body)/2]},
		"no zstd":         {good.Mark, []byte("GET / HTTP/1.1\r\n\r\n")},
		"no CBOR":         {good.Mark, packer.EncodeAll([]byte("hello"), nil)},
		"bomb":            {good.Mark, packer.EncodeAll(make([]byte, 64<<20), nil)},
		"too large":       {good.Mark, make([]byte, maxSealed+1)},
		"too many events": tooMany,
		"nested":          {good.Mark, packer.EncodeAll([]byte(strings.Repeat("\x81", 1000)+"\x00"), nil)},
		"endless array":   {good.Mark, packer.EncodeAll([]byte("\xa1\x02\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"), nil)},
	} {
		if _, err := s.Open(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	text, err := encoding.Marshal(wireBatch{Lost: 1, Events: []wireEvent{{Time: 1, Account: "alice@shop.test", New: []wireRecipient{{Hash: 1, Domain: "x"}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := Sealed{nth(1, 1), packer.EncodeAll(text, nil)}.Open()
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v", err)
			}
			return
		}
		for _, e := range b.Events {
			if len(e.Account) > maxName+2 || strings.ContainsAny(string(e.Account), "\n\x00\x1b") {
				t.Errorf("account %q", e.Account)
			}
		}
		if _, err := Seal(&b); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	batch := Batch{Mark: nth(1, 1), Events: make([]mailq.Event, 1000)}
	for i := range batch.Events {
		batch.Events[i] = wholeEvent()
	}
	sealed, err := Seal(&batch)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := sealed.Open(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(1000*b.N)/b.Elapsed().Seconds(), "events/s")
}

// What a later version adds is skipped, and what an earlier one leaves out is
// nothing.
func TestBatchesOfOtherVersions(t *testing.T) {
	for name, batch := range map[string]any{
		"no address": map[int]any{2: []any{map[int]any{1: noon.UnixNano(), 2: 3, 4: "alice@shop.test", 26: []byte("no address")}}},
		"later":      map[int]any{2: []any{map[int]any{1: noon.UnixNano(), 2: 1, 4: "alice@shop.test", 99: "new", 100: []int{1, 2}}}, 77: "new", 78: map[string]int{"x": 1}},
		"earlier":    map[int]any{2: []any{map[int]any{1: noon.UnixNano(), 2: 1, 4: "alice@shop.test"}}},
	} {
		text, err := encoding.Marshal(batch)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Sealed{nth(1, 1), packer.EncodeAll(text, nil)}.Open()
		if err != nil || len(b.Events) != 1 || b.Events[0].From.IsValid() || b.Events[0].Account != "alice@shop.test" || !b.Events[0].Time.Equal(noon) {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
}
