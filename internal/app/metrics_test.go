package app

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/mailq"
)

// A recorder remembers what is registered.
type recorder struct {
	prometheus.Registerer
	all []prometheus.Collector
}

func (r *recorder) Register(c prometheus.Collector) error {
	r.all = append(r.all, c)
	return r.Registerer.Register(c)
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	r.all = append(r.all, cs...)
	r.Registerer.MustRegister(cs...)
}

var descriptor = regexp.MustCompile(`fqName: "(vedetta_[a-z_]+)".*variableLabels: \{([^}]*)\}`)

// exported lists our metrics, each with its labels.
func exported() map[string]string {
	r := &recorder{Registerer: prometheus.NewRegistry()}
	newMetrics(r)
	r.MustRegister(newGateCollector((&gate.Policy{}).Stats))
	found := map[string]string{}
	for _, c := range r.all {
		ch := make(chan *prometheus.Desc, 100)
		c.Describe(ch)
		close(ch)
		for desc := range ch {
			if m := descriptor.FindStringSubmatch(desc.String()); m != nil {
				found[m[1]] = m[2]
			}
		}
	}
	return found
}

// The page names every metric with its labels, and no other.
func TestMonitoringPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(vedetta_[a-z_]+)` \\| [a-z]+ \\| ([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		labels := strings.NewReplacer("`", "", " ", "").Replace(row[2])
		documented[row[1]] = labels
	}
	if diff := cmp.Diff(documented, exported()); diff != "" {
		t.Errorf("docs/monitoring.md (-documented +exported):\n%s", diff)
	}
}

// The alert rules ask for metrics that there are.
func TestAlertRules(t *testing.T) {
	text, err := os.ReadFile("../../packaging/prometheus.rules")
	if err != nil {
		t.Fatal(err)
	}
	names := slices.Sorted(maps.Keys(exported()))
	asked := regexp.MustCompile(`vedetta_[a-z_]+`).FindAllString(string(text), -1)
	if len(asked) == 0 {
		t.Error("no metric is asked for")
	}
	for _, name := range asked {
		if !slices.Contains(names, name) {
			t.Errorf("packaging/prometheus.rules asks for %s, which is not exported", name)
		}
	}
}

// value is that of one counter or gauge.
func value(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v; want 1", len(families), err)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// Lines are counted as they are read; who is at the end is not behind, though
// the last event be old.
func TestReadingIsCounted(t *testing.T) {
	p := watching(t)
	p.positions = map[string][]byte{}
	old := "2026-03-20T10:00:00+00:00 mx1 postfix/submission/smtpd[7]: 4GZZk45QRtz1cZ: client=pc[192.0.2.9], sasl_method=PLAIN, sasl_username=" + victim + "\n"
	p.read(sourceChunk{"log", mailq.Chunk{Lines: []byte(old + "nonsense\n")}})
	if f := p.metrics.figures.Load(); f.parser.Lines != 2 || f.parser.Unrecognised != 1 || f.parser.Open != 1 {
		t.Errorf("figures = %+v, want 2 lines, 1 of them unrecognised, and 1 open message", f)
	}
	p.metrics.read(mailq.Chunk{}, time.Now().Add(-time.Hour))
	if lag := value(t, p.metrics.lag); lag < 3600 {
		t.Errorf("lag = %v while reading what is an hour old", lag)
	}
	p.read(sourceChunk{"log", mailq.Chunk{Lines: []byte("nonsense\n"), Caught: true}})
	if lag := value(t, p.metrics.lag); lag != 0 {
		t.Errorf("lag = %v at the end of the log, want 0", lag)
	}
}

// A line that brings a mistake of ours to light costs that line and no more.
func TestPanicCostsOneLine(t *testing.T) {
	p := watching(t)
	p.positions = map[string][]byte{}
	p.judge.detector = nil
	p.line([]byte("2026-03-20T10:00:00+00:00 mx1 postfix/submission/smtpd[7]: warning: pc[192.0.2.9]: SASL PLAIN authentication failed: , sasl_username=" + victim))
	if n := value(t, p.metrics.panics); n != 1 {
		t.Errorf("%v panics counted, want 1", n)
	}
}
