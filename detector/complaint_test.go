package detector

import (
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// A complaintRun sends messages and complains about them.
type complaintRun struct {
	*riskRun
}

func newComplaintRun(t *testing.T, act float64) *complaintRun {
	c := &complaintRun{newRiskRun(t, act)}
	c.Sent = &Sent{}
	return c
}

// send has an account send a message to domains, each of which takes it.
func (c *complaintRun) send(minute int, account mailq.Account, id string, domains ...string) {
	c.see(minute, mailq.Event{Kind: mailq.Submitted, Counts: true, Account: account, QueueID: id, To: mailq.Recipient{Domain: "-"}})
	for i, domain := range domains {
		c.see(minute, mailq.Event{Kind: mailq.Delivered, Account: account, QueueID: id, To: mailq.Recipient{Hash: uint64(i + 1), Domain: domain}})
	}
}

// complain complains about messages, as they came in, at the minute of sending.
func (c *complaintRun) complain(minute, sent int, ids ...string) (mailq.Account, ComplaintResult) {
	var by []Handled
	for _, id := range ids {
		by = append(by, Handled{id, riskStart.Add(time.Duration(sent) * time.Minute)})
	}
	account, result, found := c.Complain(by, riskStart.Add(time.Duration(minute)*time.Minute))
	c.latest = found
	return account, result
}

const mallory, shop = mailq.Account("mallory@shop.test"), mailq.Account("shop@shop.test")

// Complaints of two receivers name who sent the messages.
func TestComplaints(t *testing.T) {
	c := newComplaintRun(t, 0.1)
	for i := range 4 {
		c.send(0, mallory, fmt.Sprintf("GMX%d", i), "gmx.test")
		c.send(0, mallory, fmt.Sprintf("WEB%d", i), "mail.web.test")
	}
	for i := range 4 {
		if who, result := c.complain(0, 0, fmt.Sprintf("GMX%d", i)); who != mallory || result != ComplaintCounted {
			t.Fatalf("%s, %s", who, result)
		}
		if len(c.latest) > 0 {
			t.Fatalf("one receiver complains, and %s is named", namesOf(c.latest))
		}
	}
	if got := c.Risk(riskStart); got != 0.2 { // four, of 8 points each
		t.Errorf("one receiver makes the risk %.2f, want 0.20", got)
	}
	c.complain(0, 0, "LATERHOP", "WEB0")
	if got := namesOf(c.latest); got != "mallory@shop.test 28" {
		t.Fatalf("two receivers: %q", got)
	}
	f := c.latest[0]
	if e := f.Evidence[0]; e.Kind != rules.Complaints || e.Text != "5 of 8 delivered messages were complained about, by 2 receivers" || e.Score != 28 {
		t.Errorf("evidence %+v", e)
	}
	if f.Rule != rules.ListingRisk || f.Families != 1 || !f.Time.Equal(riskStart) {
		t.Errorf("finding %+v", f)
	}
	for i := range 4 {
		c.complain(0, 0, fmt.Sprintf("WEB%d", i))
	}
	if got := namesOf(c.latest); got != "mallory@shop.test 40" {
		t.Errorf("all: %q", got)
	}
	if d, _ := (&rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}).Decide(c.latest[0]); d.Action != rules.Throttle || !d.Enforce {
		t.Errorf("decided %s, enforce %t; want a throttle", d.Action, d.Enforce)
	}
	c.Release(mallory, riskStart.Add(time.Minute))
	c.send(0, mallory, "OLD", "gmx.test")
	c.send(2, mallory, "NEW", "gmx.test")
	if _, result := c.complain(3, 0, "OLD"); result != ComplaintReleased || c.Risk(riskStart.Add(3*time.Minute)) > 1e-9 {
		t.Errorf("of before a release: %s, risk %.3f", result, c.Risk(riskStart.Add(3*time.Minute)))
	}
	if _, result := c.complain(3, 2, "NEW"); result != ComplaintCounted {
		t.Errorf("of after it: %s", result)
	}
}

// What counts for nobody, or for nobody else.
func TestComplaintsOfForgers(t *testing.T) {
	c := newComplaintRun(t, 0.01)
	c.send(0, shop, "ORDER1", "forger.test")
	c.send(0, shop, "ORDER2", "mx.forger.test")
	c.send(0, shop, "CLUB", "forger.test", "gmx.test")
	c.send(0, shop, "NOTYET")
	c.see(0, mailq.Event{Kind: mailq.Delivered, Account: shop, QueueID: "HERE", Into: "bob@shop.test"})
	c.send(0, "forward:a@shop.test", "TWO", "gmx.test")
	c.see(0, mailq.Event{Kind: mailq.Delivered, Account: "forward:b@shop.test", QueueID: "TWO"})
	for _, tt := range []struct {
		name   string
		minute int // of the message, as the complaint has it
		ids    []string
		want   ComplaintResult
	}{
		{"no message", 0, nil, ComplaintUnknown},
		{"a message that nobody knows", 0, []string{"OTHER"}, ComplaintUnknown},
		{"a message that nobody got", 0, []string{"NOTYET"}, ComplaintUnknown},
		{"a message that stayed here", 0, []string{"HERE"}, ComplaintUnknown},
		{"a message of two", 0, []string{"TWO"}, ComplaintUnknown},
		{"the id of another time", -25 * 60, []string{"ORDER1"}, ComplaintUnknown},
		{"an id to come", 2 * 60, []string{"ORDER1"}, ComplaintUnknown},
		{"a message that he got", 0, []string{"ORDER1"}, ComplaintCounted},
		{"again", 0, []string{"ORDER1"}, ComplaintRepeated},
		{"again, further below", 0, []string{"OTHER", "ORDER1"}, ComplaintRepeated},
		{"another, at a name below", 0, []string{"ORDER2"}, ComplaintCounted},
		{"one that others got too", 0, []string{"CLUB"}, ComplaintCounted},
	} {
		if _, result := c.complain(1, tt.minute, tt.ids...); result != tt.want || len(c.latest) > 0 {
			t.Errorf("%s: %s, names %q; want %s, nobody", tt.name, result, namesOf(c.latest), tt.want)
		}
	}
	for i := range 100 { // however much he got
		id := fmt.Sprintf("MORE%d", i)
		c.send(1, shop, id, "forger.test")
		if c.complain(1, 1, id); len(c.latest) > 0 {
			t.Fatalf("one receiver names %s", namesOf(c.latest))
		}
	}
	if got := c.Risk(riskStart.Add(time.Minute)); got > 0.2801 {
		t.Errorf("one receiver makes the risk %.3f", got)
	}
	var none *ListingRisk
	if _, result, _ := none.Complain([]Handled{{"ORDER1", riskStart}}, riskStart); result != ComplaintUnknown {
		t.Errorf("nobody watches: %s", result)
	}
}

// A newsletter of which less than three in a thousand are complained about is
// hardly worth a point; old messages are worth less than new ones.
func TestComplaintsWeigh(t *testing.T) {
	c := newComplaintRun(t, 0)
	for i := range 3000 {
		c.send(0, shop, fmt.Sprintf("NEWS%d", i), fmt.Sprintf("r%d.test", i%50))
	}
	points := func(name string, minute int, id string) float64 {
		before := c.Risk(riskStart.Add(time.Duration(minute) * time.Minute))
		if _, result := c.complain(minute, 0, id); result != ComplaintCounted {
			t.Fatalf("%s: %s", name, result)
		}
		return 100 * (c.Risk(riskStart.Add(time.Duration(minute)*time.Minute)) - before)
	}
	for i := range 8 {
		if got := points("few", 0, fmt.Sprintf("NEWS%d", i)); math.Abs(got-complaintsFew) > 0.01 {
			t.Errorf("complaint %d: %.2f points", i, got)
		}
	}
	if got := points("many", 0, "NEWS8"); math.Abs(got-complaintPoints) > 0.01 {
		t.Errorf("the ninth of 3000: %.2f points", got)
	}
	if got := points("late", 24*60, "NEWS9"); math.Abs(got-complaintPoints/2) > 0.01 {
		t.Errorf("a day later: %.2f points", got)
	}
}

// A queue id that is used again is that of the new message. What is old, or more
// than fits, is forgotten, and never all at once.
func TestSentForgets(t *testing.T) {
	c := newComplaintRun(t, 0)
	c.send(0, shop, "AGAIN", "gmx.test")
	c.send(60*25, mallory, "AGAIN", "gmx.test")
	if who, result := c.complain(60*25, 60*25, "AGAIN"); who != mallory || result != ComplaintCounted {
		t.Errorf("an id that was used again: %s, %s", who, result)
	}
	const day = 24 * 60
	c = newComplaintRun(t, 0)
	c.send(0, shop, "FIRST", "gmx.test")
	c.send(3*day, shop, "SECOND", "gmx.test")
	c.send(5*day, shop, "THIRD", "gmx.test")
	if delivered, _ := c.Sent.of(shop); delivered != 3 {
		t.Errorf("%d delivered", delivered)
	}
	if _, result := c.complain(5*day, 0, "FIRST"); result != ComplaintCounted {
		t.Errorf("after five days: %s", result)
	}
	c.send(10*day, shop, "FOURTH", "gmx.test")
	if _, result := c.complain(10*day, 3*day, "SECOND"); result != ComplaintUnknown {
		t.Errorf("after ten days: %s", result)
	}
	if delivered, _ := c.Sent.of(shop); delivered != 2 {
		t.Errorf("%d delivered", delivered)
	}

	s := Sent{Max: 1000}
	for i := range 3*s.Max + 1 {
		s.saw(&mailq.Event{Kind: mailq.Submitted, Time: riskStart, Account: shop, QueueID: fmt.Sprintf("ID%d", i)})
	}
	if len(s.now.messages) != 1 || len(s.before.messages) != s.Max {
		t.Errorf("%d and %d messages", len(s.now.messages), len(s.before.messages))
	}
}

// What a message costs is what the docs say.
func TestSentMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s, written := &Sent{}, 0
	for i := range maxSentHalf {
		s.saw(&mailq.Event{Kind: mailq.Submitted, Time: riskStart, Account: mailq.Account(fmt.Sprintf("u%d@shop.test", i%10_000)), QueueID: fmt.Sprintf("ID%d", i)})
		if i%1000 == 0 {
			written += len(s.Changed())
		}
	}
	written += len(s.Changed())
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := float64(after.HeapAlloc-before.HeapAlloc) / float64(len(s.now.messages))
	disk := float64(written) / maxSentHalf
	t.Logf("a message takes %.0f bytes of memory and %.0f of a state, of 1000 accounts each", each, disk)
	if each > 64 || disk > 40 {
		t.Errorf("a message takes %.0f bytes of memory, %.0f of a state", each, disk)
	}
	if !strings.HasPrefix(string(s.now.senders[0].account), "u0@") {
		t.Error("the senders are not in their order")
	}
}

// What was written down before a restart is known after it.
func TestSentOutlivesARestart(t *testing.T) {
	c := newComplaintRun(t, 0)
	var written [][]byte
	write := func() { written = append(written, c.Sent.Changed()) }
	c.send(0, mallory, "A", "gmx.test")
	c.send(0, shop, "B", "gmx.test", "web.test")
	c.send(0, shop, "C")
	write()
	c.complain(1, 0, "A")
	c.see(1, mailq.Event{Kind: mailq.Delivered, Account: shop, QueueID: "C", To: mailq.Recipient{Domain: "gmx.test"}})
	c.send(2, "carol@shop.test", "D", "gmx.test")
	c.complain(2, 2, "D")
	c.Release("carol@shop.test", riskStart.Add(3*time.Minute))
	c.send(2, "carol@shop.test", "E", "gmx.test")
	c.send(4, "carol@shop.test", "F", "gmx.test")
	write()
	if again := c.Sent.Changed(); again != nil {
		t.Errorf("%d bytes are written again", len(again))
	}

	r := newComplaintRun(t, 0)
	for _, state := range written {
		if err := r.Sent.Restore(state); err != nil {
			t.Fatal(err)
		}
	}
	if again := r.Sent.Changed(); again != nil {
		t.Errorf("%d bytes are written again after a restart", len(again))
	}
	for _, who := range []mailq.Account{mallory, shop, "carol@shop.test"} {
		delivered, blamed := r.Sent.of(who)
		if d, b := c.Sent.of(who); d != delivered || b != blamed {
			t.Errorf("%s: %d delivered, %d complained about; before %d, %d", who, delivered, blamed, d, b)
		}
	}
	for _, tt := range []struct {
		id   string
		sent int
		want ComplaintResult
	}{{"A", 0, ComplaintRepeated}, {"B", 0, ComplaintCounted}, {"C", 0, ComplaintCounted}, {"D", 2, ComplaintRepeated}, {"E", 2, ComplaintReleased}, {"F", 4, ComplaintCounted}, {"G", 0, ComplaintUnknown}} {
		if _, result := r.complain(5, tt.sent, tt.id); result != tt.want {
			t.Errorf("%s: %s, want %s", tt.id, result, tt.want)
		}
	}
	half, m, ok := r.Sent.find(sentKey("B"))
	if !ok || m.receiver != severalReceivers || half.senders[m.from].account != shop {
		t.Errorf("B: %+v", m)
	}
}

// A damaged state is an error and no more.
func FuzzSentRestore(f *testing.F) {
	c := Sent{}
	for i := range 3 {
		c.saw(&mailq.Event{Kind: mailq.Submitted, Time: riskStart, Account: shop, QueueID: fmt.Sprint(i)})
	}
	c.release(shop, riskStart)
	f.Add(c.Changed())
	f.Add([]byte{sentVersion, 0xff})
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, state []byte) {
		s := Sent{Max: 4}
		if err := s.Restore(state); err != nil {
			return
		}
		if n := len(s.now.messages) + len(s.before.messages); n > 2*s.Max || s.Changed() != nil {
			t.Fatalf("%d messages", n)
		}
	})
}

// What an agent tells after a cut of its hub counts for complaints too, and for
// nothing else.
func TestComplaintsAboutWhatIsToldLate(t *testing.T) {
	c := newComplaintRun(t, 0.1)
	for _, kind := range []mailq.Kind{mailq.Submitted, mailq.Delivered} {
		c.Left(&mailq.Event{Time: riskStart, Kind: kind, Counts: kind == mailq.Submitted, Account: mallory, QueueID: "LATE", New: []mailq.Recipient{{Hash: trapHash}},
			To: mailq.Recipient{Hash: 1, Domain: "gmx.test"}})
	}
	if risk := c.Risk(riskStart); risk > 0 {
		t.Errorf("risk %.2f before the complaint", risk)
	}
	if who, result := c.complain(60, 0, "LATE"); who != mallory || result != ComplaintCounted {
		t.Errorf("%s, %s", who, result)
	}
	(*ListingRisk)(nil).Left(&mailq.Event{Account: mallory})
}
