package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// complaining is a service in which complaints count.
func complaining(t *testing.T, reg *prometheus.Registry) *service {
	t.Helper()
	p := asked(t)
	p.positions = map[string][]byte{}
	p.metrics = newMetrics(reg)
	p.judge.policy = &rules.Policy{Set: rules.Shipped(), Mode: rules.ModeEnforce}
	p.judge.risk = &detector.ListingRisk{Act: 0.1, Sent: &detector.Sent{}}
	return &service{pipeline: p}
}

// deliver has the log tell that a message of the victim's was delivered.
func deliver(s *service, id, domain string) {
	now := time.Now().UTC().Format(time.RFC3339)
	for _, line := range []string{
		"postfix/submission/smtpd[7]: " + id + ": client=pc[192.0.2.9], sasl_method=PLAIN, sasl_username=" + victim,
		"postfix/qmgr[8]: " + id + ": from=<" + victim + ">, size=1000, nrcpt=1 (queue active)",
		"postfix/smtp[9]: " + id + ": to=<r@" + domain + ">, relay=mx." + domain + "[192.0.2.25]:25, delay=1, delays=0/0/1/0, dsn=2.0.0, status=sent (250 ok)",
		"postfix/qmgr[8]: " + id + ": removed",
	} {
		s.line([]byte(now + " mx1 " + line))
	}
}

// complain hands in a complaint as a feedback loop sends it.
func complain(t *testing.T, s *service, kind, id string) web.ComplaintResult {
	t.Helper()
	c, err := ReadComplaint(strings.NewReader("Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n" +
		"--b\nContent-Type: message/feedback-report\n\nFeedback-Type: " + kind + "\nSource-IP: 203.0.113.9\n\n" +
		"--b\nContent-Type: message/rfc822\n\nReceived: from pc by mx1.hosting.test (Postfix) with ESMTPSA id " + id + ";\n\t" + time.Now().Format(time.RFC1123Z) + "\n\n--b--\n"))
	if err != nil || c.Problem != "" || c.Source != "203.0.113.9" {
		t.Fatalf("%+v, %v", c, err)
	}
	go func() { (<-s.asks)() }()
	result, err := s.complaintDesk().Complain(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// A complaint about a message of the log is a step on the ladder, over a restart
// of the service too; what blames nobody is none.
func TestComplaintsClimb(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := complaining(t, reg)
	for i := range 4 {
		deliver(s, fmt.Sprintf("4GZZk45QRtz1c%d", i), fmt.Sprintf("r%d.test", i%2))
	}
	b := s.snapshot()
	if len(b.Sent) != 1 || rows(work{batch: b}) == 0 {
		t.Fatalf("%d changes of what was sent", len(b.Sent))
	}
	if _, err := s.store.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s.judge.risk = &detector.ListingRisk{Act: 0.1, Sent: &detector.Sent{}}
	if err := s.restoreSent(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := web.ComplaintResult{Result: "counted", Account: victim}
	for i := range 4 {
		if got := complain(t, s, "abuse", fmt.Sprintf("4GZZk45QRtz1c%d", i)); got != want {
			t.Errorf("complaint %d: %+v, want %+v", i, got, want)
		}
		if i == 0 && len(s.steps) > 0 {
			t.Errorf("one complaint led to %s", s.steps[0].decision.Action)
		}
	}
	if n := len(s.steps); n == 0 || s.steps[n-1].decision.Action != rules.Throttle || s.steps[n-1].finding.Subject != victim {
		t.Errorf("%d steps: %+v", n, s.steps)
	}
	if got := complain(t, s, "abuse", "4GZZk45QRtz1c0"); got.Result != "repeated" {
		t.Errorf("again: %s", got.Result)
	}
	if got := complain(t, s, "abuse", "4GZZk45QRtz1c9"); got != (web.ComplaintResult{Result: "unknown"}) {
		t.Errorf("about nothing of ours: %+v", got)
	}
	for name, c := range map[string]web.Complaint{"other": {Type: "not-spam", Hops: []web.Hop{{ID: "4GZZk45QRtz1c0"}}}, "unreadable": {Problem: "no complaint"}} {
		if got, err := s.complaintDesk().Complain(t.Context(), c); err != nil || got.Result != name {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	counts := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "vedetta_complaints_total" {
				counts[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	if diff := cmp.Diff(counts, map[string]float64{"counted": 4, "repeated": 1, "unknown": 1, "other": 1, "unreadable": 1}); diff != "" {
		t.Errorf("metric (-got +want):\n%s", diff)
	}
}

// Who is released is told of no complaint about what he sent before, and where
// complaints do not count nothing is remembered.
func TestComplaintsAfterARelease(t *testing.T) {
	s := complaining(t, prometheus.NewRegistry())
	deliver(s, "4GZZk45QRtz1c0", "r0.test")
	s.prepare(&order{Order: web.Order{Do: doRelease}, account: mailq.Account(victim), at: time.Now().Add(time.Second)})
	if got := complain(t, s, "abuse", "4GZZk45QRtz1c0"); got != (web.ComplaintResult{Result: "released", Account: victim}) {
		t.Errorf("%+v", got)
	}
	s.judge.risk.Sent = nil
	deliver(s, "4GZZk45QRtz1c1", "r0.test")
	if s.complaintDesk() != nil || len(s.snapshot().Sent) > 0 {
		t.Error("it is remembered what was sent")
	}
}
