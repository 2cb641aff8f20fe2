package app

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/dnsbl"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// metrics are the counters of one running service. Labels come from closed
// sets: an account or an address never is one. docs/monitoring.md lists them.
type metrics struct {
	bytes      prometheus.Counter
	skipped    prometheus.Counter
	lag        prometheus.Gauge
	decisions  *prometheus.CounterVec
	failed     *prometheus.CounterVec
	unwritten  prometheus.Counter
	blind      *prometheus.CounterVec
	told       *prometheus.CounterVec
	outbox     prometheus.Gauge
	dead       prometheus.Gauge
	database   prometheus.Gauge
	queued     *prometheus.GaugeVec
	backlog    prometheus.Gauge
	backlogAge prometheus.Gauge
	notes      prometheus.Counter
	lostNotes  prometheus.Counter
	panics     prometheus.Counter

	// Of a hub.
	batches, agentEvents, lostEvents, foreign prometheus.Counter
	journal, agentLag, agentWaiting           prometheus.Gauge
	agents                                    *prometheus.GaugeVec

	listMetrics

	figures atomic.Pointer[figures]
}

// listMetrics are those of block lists, and of what leads to a listing.
type listMetrics struct {
	lists, listUsable, listings      *prometheus.GaugeVec
	listSubjects, exposure, listRisk prometheus.Gauge
	pressed                          prometheus.Gauge
	listQuestions, complaints        *prometheus.CounterVec
	listInquiries                    *prometheus.CounterVec
}

// figures are what parser and detector counted, as observe last saw it.
type figures struct {
	parser   mailq.ParserStats
	detector detector.Stats
	calib    detector.Calibration
}

// known notes what parser and detector count. It runs in observe.
func (m *metrics) known(j *judge) {
	m.figures.Store(&figures{j.parser.Stats(), j.detector.Stats(), j.detector.Calibration()})
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m := &metrics{
		bytes:      f.NewCounter(prometheus.CounterOpts{Name: "vedetta_log_read_bytes_total", Help: "Log text read."}),
		skipped:    f.NewCounter(prometheus.CounterOpts{Name: "vedetta_log_lines_too_long_total", Help: "Log lines dropped because they were longer than 64 KiB."}),
		lag:        f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_log_lag_seconds", Help: "Age of the newest log event when it was read."}),
		decisions:  f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_decisions_total", Help: "Decisions, by action and whether they were carried out."}, []string{"action", "enforced"}),
		failed:     f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_actions_failed_total", Help: "Decisions whose carrying out failed at least in part."}, []string{"action"}),
		unwritten:  f.NewCounter(prometheus.CounterOpts{Name: "vedetta_store_failures_total", Help: "Times that the database could not be written."}),
		blind:      f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_blind_total", Help: "Times that something to be watched could not be read, or a block not be put in force, by kind."}, []string{"kind"}),
		told:       f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_notifications_total", Help: "Messages to people, by channel and result."}, []string{"channel", "result"}),
		outbox:     f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_notifications_waiting", Help: "Messages to people that wait to be sent."}),
		dead:       f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_notifications_dead", Help: "Messages to people that were given up."}),
		database:   f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_database_bytes", Help: "Size of the database."}),
		queued:     f.NewGaugeVec(prometheus.GaugeOpts{Name: "vedetta_queue_messages", Help: "Messages in the mail queue at the last sample, by queue."}, []string{"queue"}),
		backlog:    f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_throttle_backlog_messages", Help: "Messages of throttled accounts that wait on hold."}),
		backlogAge: f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_throttle_backlog_age_seconds", Help: "Age of the oldest message of a throttled account that waits on hold."}),
		notes:      f.NewCounter(prometheus.CounterOpts{Name: "vedetta_gate_messages_total", Help: "Messages that the gate was told of at their end."}),
		panics:     f.NewCounter(prometheus.CounterOpts{Name: "vedetta_panics_total", Help: "Mistakes of ours that cost a log line, an answer of a block list, or a part of the watch over block lists."}),

		batches:      f.NewCounter(prometheus.CounterOpts{Name: "vedetta_agent_batches_total", Help: "Batches of agents that were judged."}),
		agentEvents:  f.NewCounter(prometheus.CounterOpts{Name: "vedetta_agent_events_total", Help: "Events of agents that were judged."}),
		lostEvents:   f.NewCounter(prometheus.CounterOpts{Name: "vedetta_agent_events_lost_total", Help: "Events that did not fit the disk of an agent."}),
		foreign:      f.NewCounter(prometheus.CounterOpts{Name: "vedetta_agent_events_foreign_total", Help: "Events about accounts of which the agent may not speak."}),
		agents:       f.NewGaugeVec(prometheus.GaugeOpts{Name: "vedetta_agents", Help: "Agents, by state."}, []string{"state"}),
		agentLag:     f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_agent_lag_seconds", Help: "Age of the newest event of the agent that is furthest behind, when that came."}),
		agentWaiting: f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_agent_waiting_batches", Help: "Batches in the spools of all agents, as they said last."}),

		journal: f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_agent_journal_bytes", Help: "What agents sent and is kept until it is judged."}),

		listMetrics: newListMetrics(f),

		lostNotes: f.NewCounter(prometheus.CounterOpts{Name: "vedetta_gate_messages_dropped_total", Help: "Messages that the gate was told of and that were left to the log, because reading was behind."}),
	}
	m.figures.Store(&figures{})
	m.counted(reg, "vedetta_log_lines_total", "Log lines read.", func(f *figures) uint64 { return f.parser.Lines })
	m.counted(reg, "vedetta_log_lines_unrecognised_total", "Log lines that no parser knew.", func(f *figures) uint64 { return f.parser.Unrecognised })
	m.counted(reg, "vedetta_log_events_total", "Events made of log lines and of what the gate was told.", func(f *figures) uint64 { return f.parser.Events })
	m.counted(reg, "vedetta_messages_evicted_total", "Open messages forgotten for want of room.", func(f *figures) uint64 { return f.parser.Evicted })
	m.counted(reg, "vedetta_accounts_evicted_total", "Silent accounts forgotten for want of room.", func(f *figures) uint64 { return f.detector.Evicted })
	m.counted(reg, "vedetta_events_untracked_total", "Events of accounts for which there was no room.", func(f *figures) uint64 { return f.detector.Untracked })
	m.counted(reg, "vedetta_agent_events_late_total", "Events of agents that came after newer mail of their accounts: counted and not judged.", func(f *figures) uint64 { return f.detector.Late })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "vedetta_messages_open", Help: "Messages accepted and not yet gone."},
		func() float64 { return float64(m.figures.Load().parser.Open) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "vedetta_accounts", Help: "Accounts that something is known about."},
		func() float64 { return float64(m.figures.Load().detector.Accounts) })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "vedetta_hold_score", Help: "Score at which an account of two families of evidence is held by the shipped rules, on this installation."},
		func() float64 { return m.figures.Load().calib.Hold })
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "vedetta_ordinary_mailbox_days", Help: "Mailbox-days that the thresholds follow from."},
		func() float64 { return float64(m.figures.Load().calib.MailboxDays) })
	for _, channel := range []string{"mail", "webhook"} {
		for _, result := range []string{"sent", "failed", "refused"} {
			m.told.WithLabelValues(channel, result)
		}
	}
	for action := rules.Observe; action <= rules.Reset; action++ {
		m.decisions.WithLabelValues(action.String(), "true")
		m.decisions.WithLabelValues(action.String(), "false")
		m.failed.WithLabelValues(action.String())
	}
	for _, kind := range []string{"log", "queue", "aliases", "enforcement", "places", "lists"} {
		m.blind.WithLabelValues(kind)
	}
	return m
}

func newListMetrics(f promauto.Factory) listMetrics {
	m := listMetrics{
		lists:         f.NewGaugeVec(prometheus.GaugeOpts{Name: "vedetta_dnsbl_lists", Help: "Block lists, by state."}, []string{"state"}),
		listUsable:    f.NewGaugeVec(prometheus.GaugeOpts{Name: "vedetta_dnsbl_list_usable", Help: "1 while what a block list says is believed."}, []string{"list"}),
		listings:      f.NewGaugeVec(prometheus.GaugeOpts{Name: "vedetta_dnsbl_listings", Help: "Listings of our addresses and domains, by what they mean to us."}, []string{"tier"}),
		listSubjects:  f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_dnsbl_subjects", Help: "Addresses and domains that are watched on block lists."}),
		exposure:      f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_dnsbl_exposure", Help: "The highest exposure of an address or domain, 0 to 1."}),
		listRisk:      f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_dnsbl_risk", Help: "What the log says of the risk that our addresses are listed, 0 to 1."}),
		pressed:       f.NewGauge(prometheus.GaugeOpts{Name: "vedetta_dnsbl_neighbourhoods", Help: "Networks of our addresses in which neighbours are listed."}),
		listQuestions: f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_dnsbl_questions_total", Help: "Questions to block lists, by whether there was an answer."}, []string{"answer"}),
		complaints:    f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_complaints_total", Help: "Complaints of feedback loops, by what they were worth."}, []string{"result"}),
		listInquiries: f.NewCounterVec(prometheus.CounterOpts{Name: "vedetta_dnsbl_inquiries_total", Help: "Questions to block lists about clients of accounts and about neighbours, by what came of them."}, []string{"of", "result"}),
	}
	for _, result := range []string{"listed", "clean", "unknown", leftOut} {
		m.listInquiries.WithLabelValues(dnsbl.ForClient.String(), result)
		m.listInquiries.WithLabelValues(dnsbl.ForNeighbour.String(), result)
	}
	return m
}

// counted exports one of the figures.
func (m *metrics) counted(reg prometheus.Registerer, name, help string, of func(*figures) uint64) {
	promauto.With(reg).NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, func() float64 { return float64(of(m.figures.Load())) })
}

// read notes a chunk; newest is the time of its last event, zero if it has
// none. Who has read everything is not behind, however old the last event is.
func (m *metrics) read(c mailq.Chunk, newest time.Time) {
	m.bytes.Add(float64(len(c.Lines)))
	m.skipped.Add(float64(c.Skipped))
	switch {
	case !newest.IsZero():
		m.lag.Set(max(0, time.Since(newest).Seconds()))
	case c.Caught:
		m.lag.Set(0)
	}
}

func (m *metrics) decided(d rules.Decision, o enforce.Outcome) {
	enforced := "false"
	if d.Enforce {
		enforced = "true"
	}
	m.decisions.WithLabelValues(d.Action.String(), enforced).Inc()
	if !o.OK {
		m.failed.WithLabelValues(d.Action.String()).Inc()
	}
}

// A gateCollector exports the gate's own counters when it is asked for them.
type gateCollector struct {
	stats    func() gate.Stats
	answers  *prometheus.Desc
	problems *prometheus.Desc
	open     *prometheus.Desc
	latency  *prometheus.Desc
}

func newGateCollector(stats func() gate.Stats) *gateCollector {
	return &gateCollector{
		stats:    stats,
		answers:  prometheus.NewDesc("vedetta_gate_answers_total", "Answers to mail servers, by answer.", []string{"answer"}, nil),
		problems: prometheus.NewDesc("vedetta_gate_problems_total", "Requests and connections that were not served, by kind.", []string{"kind"}, nil),
		open:     prometheus.NewDesc("vedetta_gate_connections", "Open connections of mail servers.", nil, nil),
		latency:  prometheus.NewDesc("vedetta_gate_answer_seconds", "Time from a request's last byte to its answer.", nil, nil),
	}
}

func (g *gateCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(g, ch) }

func (g *gateCollector) Collect(ch chan<- prometheus.Metric) {
	s := g.stats()
	for answer, n := range s.Answers {
		ch <- prometheus.MustNewConstMetric(g.answers, prometheus.CounterValue, float64(n), answer.String())
	}
	for kind, n := range map[string]uint64{"malformed": s.Malformed, "slow": s.Slow, "too_many": s.Refused, "panic": s.Panics} {
		ch <- prometheus.MustNewConstMetric(g.problems, prometheus.CounterValue, float64(n), kind)
	}
	ch <- prometheus.MustNewConstMetric(g.open, prometheus.GaugeValue, float64(s.Connections))
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, n := range s.Latency.Counts {
		total += n
		if i < len(s.Latency.Bounds) {
			buckets[s.Latency.Bounds[i].Seconds()] = total
		}
	}
	ch <- prometheus.MustNewConstHistogram(g.latency, total, s.Latency.Sum.Seconds(), buckets)
}
