// Package app wires the parts into the programs: serve, replay and demo. It
// starts every goroutine and is the only package that knows them all. Begin
// reading at pipeline.go.
package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/enforce"
	"github.com/vedetta-watch/vedetta/incident"
	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/internal/store"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// Options are what Run needs. Log and Registry are required.
type Options struct {
	Config   config.Config
	Log      *slog.Logger
	Registry *prometheus.Registry
	Ready    func(Ready) // called once, when everything listens; may be nil
}

// Ready says where the service listens.
type Ready struct {
	Gate   []net.Addr // the policy service's first, then the milter's, then Exim's
	API    net.Addr   // nil when switched off
	Agents net.Addr   // where agents report; nil: there are none
	Token  string
}

// Run is `vedetta serve`: it returns when ctx ends, or with the error that
// kept it from starting or going on.
func Run(ctx context.Context, o Options) error {
	c, db, end, err := begin(ctx, o.Config)
	if err != nil {
		return err
	}
	defer end()
	s, err := newService(ctx, c, db, o)
	if err != nil {
		return err
	}
	if err := s.restore(ctx); err != nil {
		return err
	}
	return s.run(ctx, o.Ready)
}

// begin takes the state directory for this process alone and opens the
// database there. End gives both back.
func begin(ctx context.Context, c config.Config) (_ config.Config, db *store.DB, end func(), err error) {
	if c.Hostname == "" {
		c.Hostname, _ = os.Hostname()
	}
	if err := makeState(c.State); err != nil {
		return c, nil, nil, err
	}
	release, err := lock(c.State)
	if err != nil {
		return c, nil, nil, err
	}
	if db, err = store.Open(ctx, c.Database()); err != nil {
		release()
		return c, nil, nil, err
	}
	return c, db, func() { db.Close(); release() }, nil
}

// A service is everything that Run has built.
type service struct {
	*pipeline
	config   config.Config
	registry *prometheus.Registry
	agent    *agent // nil: this is no agent
	keyring  *keyring
	pace     time.Duration // between two looks at a log; 0: the usual
	doors    []door
	sources  []source
	files    []*logFile // of the sources; keep's
	backlog  *backlog
	force    eye // on what should be in force
	turning  eye // on a rotation of the recipients' key
	unforced int // comparisons in a row that could not bring it about

	paged        []string         // decisions of before with which people were to be paged
	untoldBefore []rules.Decision // proposals, and what ran out, that the last run wrote down and did not come to tell
}

// queueLength bounds the hand-over between the pipeline's halves.
const queueLength = 4

// maxNotes bounds what the gate tells ahead of the log.
const maxNotes = 4096

func newService(ctx context.Context, c config.Config, db *store.DB, o Options) (*service, error) {
	aliases, unread, err := aliasesAtStart(ctx, c.Accounts.Aliases, db)
	if err != nil {
		return nil, fmt.Errorf("aliases: %w", err)
	}
	dir := &directory{}
	dir.set(buildDirectory(c.Accounts, aliases))
	j, err := newJudge(c, dir, time.Now())
	if err != nil {
		return nil, err
	}
	ring, err := loadKeyring(ctx, db)
	if err != nil {
		return nil, err
	}
	keys := ring.keys()
	j.parser.Key, j.parser.Next = keys.Key, keys.Next
	j.watchRisk(c.DNSBL.Risk, dir)
	if c.DNSBL.Risk.Complaints {
		j.risk.Sent = &detector.Sent{}
	}
	if err := j.places.load(); err != nil {
		o.Log.Error("starting without knowing where clients are", "err", err) // keep tries again
	}
	j.blast = &rules.BlastLimit{Max: c.Rules.BlastMax, Per: time.Duration(c.Rules.BlastPer)}
	m := newMetrics(o.Registry)
	t, err := newTeller(c.Notify, c.Hostname, db, m, o.Log)
	if err != nil {
		return nil, err
	}
	queue, panels := newQueue(c), newPanels(c)
	if why := cannotRelease(c, queue); why != "" && c.Gate.Throttle == "hold" {
		c.Gate.Throttle = "defer"
		o.Log.Warn("throttled accounts are deferred: mail that is held could not be released", "why", why)
	}
	table := &gate.Table{Allowance: allowance(c.Gate), Throttled: throttled(c.Gate)}
	var toldOf enforce.Gate = table
	var agents *fleet
	if c.Agents.Listen != "" {
		if agents, err = newFleet(ctx, c, db, ring); err != nil {
			return nil, err
		}
		toldOf = gates{table, agents.board}
	}
	p := &pipeline{
		log: o.Log, metrics: m, judge: j, store: db, book: &incident.Book{}, teller: t,
		acts: newExecutor(c, toldOf, panels, dir, db), queue: queue, directory: dir, fleet: agents,
		stale:  time.Duration(c.Rules.StaleAfter),
		chunks: make(chan sourceChunk), notes: make(chan gate.Request, maxNotes), manyNotes: newBell(), asks: make(chan func()),
		work: make(chan work, queueLength), done: make(chan struct{}), answered: make(chan struct{}), reconciled: make(chan time.Time, 1),
		positions: map[string][]byte{},
		health:    &health{mode: string(c.Mode), parts: map[string]string{}},
	}
	if err := p.canReset(c, panels); err != nil {
		return nil, err
	}
	p.restraints = make(chan restraint, maxRestrained)
	p.bookChanges = make(chan bookChange)
	if p.lists, err = newListWatch(c, p); err != nil {
		return nil, err
	}
	t.notified = p.book.Notified
	s := &service{pipeline: p, config: c, registry: o.Registry, keyring: ring, backlog: newBacklog(c.Gate, table)}
	s.force = eye{kind: "enforcement", subject: "blocks on " + c.Hostname, part: "blocks"}
	s.turning = eye{kind: "rotation", subject: "rotation of the key of recipients", part: "rotation of the key"}
	if unread != nil {
		s.health.set(aliasEye().name(), unread)
		s.log.Error("starting with the aliases that were read last", "err", unread)
	}
	s.doors = newDoors(c, table, dir, p.seen, o.Log)
	doorStats(s.doors, o.Registry)
	return s, nil
}

// newJudge builds what serve and replay have in common.
func newJudge(c config.Config, dir *directory, now time.Time) (*judge, error) {
	j, err := newJudgeWithoutRules(c, dir, now)
	if err != nil {
		return nil, err
	}
	j.policy.Set, err = readRules(c)
	return j, err
}

// newJudgeWithoutRules is newJudge for who sets the judge's rules, or its lacks.
func newJudgeWithoutRules(c config.Config, dir *directory, now time.Time) (*judge, error) {
	location, err := time.LoadLocation(zoneOf(c))
	if err != nil {
		return nil, err
	}
	mode := rules.ModeObserve
	if c.Mode == config.ModeEnforce {
		mode = rules.ModeEnforce
	}
	settings, where := detectorConfig(c), newPlaces(c.GeoIP)
	if len(where.files()) > 0 {
		settings.Locate = where.Locate
	}
	return &judge{
		parser:   &mailq.Parser{Directory: dir.Load(), Location: location, Now: now},
		detector: detector.New(settings, dir),
		places:   where,
		policy:   &rules.Policy{Mode: mode, Exempt: c.Accounts.Exempt},
	}, nil
}

// zoneOf is the zone of stamps that name none. One parser joins all logs, so
// they share it.
func zoneOf(c config.Config) string {
	for _, l := range c.Logs {
		if l.TimeZone != "" {
			return l.TimeZone
		}
	}
	return "Local"
}

// readRules is the rules by which a configuration decides.
func readRules(c config.Config) (*rules.Set, error) {
	if err := CheckRules(c); err != nil {
		return nil, err
	}
	return loadRules(c.Rules.Dir)
}

// loadRules is the shipped set, with an operator's own files over it.
func loadRules(dir string) (*rules.Set, error) {
	set := rules.Shipped()
	if dir == "" {
		return set, nil
	}
	own, err := rules.LoadDir(dir)
	if err != nil {
		return nil, err
	}
	return set.Merge(own), nil
}

// detectorConfig is the detector's part of a configuration.
func detectorConfig(c config.Config) detector.Config {
	d := detector.Default()
	d.WrongStops = float32(c.Rules.WrongStops)
	return d
}

// Calibration says where the thresholds came out on this installation. Before its
// first start nothing is known.
func Calibration(ctx context.Context, c config.Config) (detector.Calibration, error) {
	d := detector.New(detectorConfig(c), nil)
	if _, err := os.Stat(c.Database()); errors.Is(err, fs.ErrNotExist) {
		return d.Calibration(), nil
	}
	db, err := store.Open(ctx, c.Database())
	if err != nil {
		return detector.Calibration{}, err
	}
	defer db.Close()
	err = db.LoadAccounts(ctx, func(a store.AccountState) error {
		if a.Account == "" {
			return d.Restore("", a.State)
		}
		return nil
	})
	return d.Calibration(), err
}

// CheckPlaces finds what is wrong with the databases of places.
func CheckPlaces(c config.Config) error {
	if err := newPlaces(c.GeoIP).load(); err != nil {
		return fmt.Errorf("geoip: %w", err)
	}
	return nil
}

// CheckLists finds what is wrong with the catalogue and the keys of block lists,
// and returns what is doubtful.
func CheckLists(c config.Config) (warnings []string, err error) {
	_, warnings, err = listCatalogue(c.DNSBL)
	return warnings, err
}

// CheckRules finds the mistakes in what a configuration says of rules: the
// files that it names, and the exempt list.
func CheckRules(c config.Config) error {
	_, err := loadRules(c.Rules.Dir)
	errs := []error{err}
	for i, entry := range c.Accounts.Exempt {
		if err := rules.CheckExempt(entry); err != nil {
			errs = append(errs, fmt.Errorf("accounts.exempt[%d]: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// restore puts back what the last run knew, so that reading goes on as if it
// had never stopped.
func (s *service) restore(ctx context.Context) error {
	if err := s.restoreLearnt(ctx); err != nil {
		return err
	}
	now := time.Now()
	if err := s.restoreDecisions(ctx, now); err != nil {
		return fmt.Errorf("decisions: %w", err)
	}
	if err := s.restoreIncidents(ctx); err != nil {
		return fmt.Errorf("incidents: %w", err)
	}
	if s.lists != nil {
		if err := s.lists.restore(ctx); err != nil {
			return err
		}
	}
	positions, err := s.store.LoadPositions(ctx)
	if err != nil {
		return err
	}
	for _, l := range s.config.Logs {
		src, err := newSource(l, positions[l.Name()], s.pace)
		if err != nil {
			return err
		}
		s.sources = append(s.sources, src)
		if l.Path != "" {
			s.files = append(s.files, newLogFile(l.Path))
		}
	}
	return nil
}

// restoreLearnt puts back accounts and open messages. What cannot be read, by
// damage or because another version wrote it, is left out: a watch that begins
// anew with an account is better than none.
func (s *service) restoreLearnt(ctx context.Context) error {
	accounts, messages := spoilt{of: "accounts"}, spoilt{of: "open messages"}
	if err := s.store.LoadAccounts(ctx, func(a store.AccountState) error {
		accounts.add(s.judge.detector.Restore(mailq.Account(a.Account), a.State))
		return nil
	}); err != nil {
		return fmt.Errorf("learnt state: %w", err)
	}
	if err := s.store.LoadMessages(ctx, func(m store.MessageState) error {
		messages.add(s.judge.parser.Restore(m.Key, m.State))
		return nil
	}); err != nil {
		return fmt.Errorf("open messages: %w", err)
	}
	accounts.tell(s.log)
	messages.tell(s.log)
	return s.restoreSent(ctx)
}

// spoilt counts what cannot be restored.
type spoilt struct {
	of    string
	n     int
	first error
}

func (s *spoilt) add(err error) {
	if err == nil {
		return
	}
	if s.n++; s.n == 1 {
		s.first = err
	}
}

func (s *spoilt) tell(log *slog.Logger) {
	if s.n > 0 {
		log.Error("what was known could not be read and is learnt anew", "of", s.of, "number", s.n, "first", s.first)
	}
}

// episodeMemory is how long ago an episode may have begun and still go on.
const episodeMemory = 30 * 24 * time.Hour

// restoreDecisions remembers what was decided: everything in force, and the
// newest of the rest. What is older and not in force was told long ago, and the
// journal knows it when it is decided again.
func (s *service) restoreDecisions(ctx context.Context, now time.Time) error {
	active, err := s.store.Active(ctx, now)
	if err != nil {
		return err
	}
	rows, err := s.store.Decisions(ctx, store.DecisionFilter{Since: now.Add(-episodeMemory), Limit: 1000})
	if err != nil {
		return err
	}
	slices.Reverse(rows) // oldest first, as they were decided
	for _, row := range rows {
		active = append(active, row.Decision)
		if row.OutcomeAt.IsZero() && (ranOut(row) || !row.Enforce && row.EndedAt.IsZero()) {
			s.untoldBefore = append(s.untoldBefore, row.Decision)
		}
		if row.Enforce && row.Action != rules.Reset && !row.OutcomeAt.IsZero() && !row.OK && row.EndedAt.IsZero() {
			f, err := s.store.Finding(ctx, row.Finding)
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			s.remember(step{finding: f, decision: row.Decision}, enforce.Outcome{Detail: row.Outcome}, row.OutcomeAt)
		}
	}
	for _, d := range active {
		if d.Finding != "" && s.judge.higher(d) {
			s.judge.climb(d)
		}
	}
	s.paged = s.judge.blast.Restore(active)
	return s.restoreReleases(ctx)
}

// ranOut says that a decision ended because its time was over, and not because
// somebody ended it.
func ranOut(row store.DecisionRow) bool {
	return !row.EndedAt.IsZero() && !row.Until.IsZero() && !row.EndedAt.Before(row.Until)
}

// restoreReleases teaches again what a crash kept from being written.
func (s *service) restoreReleases(ctx context.Context) error {
	releases, err := s.store.PendingReleases(ctx)
	for _, r := range releases {
		s.judge.detector.Release(mailq.Account(r.Subject), r.At, r.Key)
		s.learned = append(s.learned, r.Key)
		s.dirty = true
	}
	return err
}

func (s *service) restoreIncidents(ctx context.Context) error {
	rows, err := s.store.Incidents(ctx, time.Time{}, 1000)
	if err != nil {
		return err
	}
	open, err := s.store.OpenIncidents(ctx)
	if err != nil {
		return err
	}
	damaged := spoilt{of: "incidents"}
	for _, row := range append(open, rows...) {
		var in incident.Incident
		if err := json.Unmarshal(row.Body, &in); err != nil {
			damaged.add(fmt.Errorf("incident %s: %w", row.ID, err))
			continue
		}
		s.book.Restore(in)
	}
	damaged.tell(s.log)
	return nil
}

// run starts everything and waits for its end. What must be in force is in
// force before anybody can ask.
func (s *service) run(ctx context.Context, ready func(Ready)) error {
	if err := s.enforceAgain(ctx); err != nil {
		return err
	}
	gates, err := openDoors(s.doors)
	if err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	api, token, err := s.listenAPI()
	if err != nil {
		closeDoors(gates)
		return err
	}
	agents, err := s.listenAgents()
	if err != nil {
		closeDoors(gates)
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.observe(ctx) })
	g.Go(func() error { return s.answer(ctx) })
	g.Go(func() error { return s.teller.run(ctx) })
	g.Go(func() error { return s.keep(ctx) })
	g.Go(func() error { return s.sampleQueue(ctx) })
	g.Go(func() error { return s.letOut(ctx) })
	g.Go(func() error { return s.changePasswords(ctx) })
	g.Go(func() error { return s.restrainAll(ctx) })
	g.Go(func() error { return s.refreshAliases(ctx, s.config.Accounts) })
	for _, src := range s.sources {
		g.Go(func() error { return s.follow(ctx, src) })
	}
	if agents != nil {
		g.Go(func() error { return s.receive(ctx, agents) })
	}
	if s.lists != nil {
		g.Go(func() error { return s.lists.run(ctx) })
	} else {
		g.Go(func() error { return s.endUnwatched(ctx) })
	}
	if s.agent != nil {
		g.Go(func() error { return s.send(ctx) })
		g.Go(func() error { return s.obeyHub(ctx) })
		g.Go(func() error { return s.tellResets(ctx) })
		g.Go(func() error { return s.renewCertificate(ctx) })
	}
	r := Ready{Token: token}
	for _, at := range gates {
		r.Gate = append(r.Gate, at.Addr())
		g.Go(func() error { return at.Serve(ctx, at.Listener) })
	}
	if agents != nil {
		r.Agents = agents.Addr()
	}
	if api != nil {
		r.API = api.Addr()
		g.Go(func() error { return s.serveAPI(ctx, api, token) })
	}
	s.log.Info("watching", "version", Version(), "mode", s.health.mode, "gate", fmt.Sprint(r.Gate), "api", fmt.Sprint(r.API))
	if len(s.teller.channels) == 0 && s.agent == nil {
		s.log.Warn("nobody is told: the configuration has neither notify.mail.server nor notify.webhook.url")
	}
	if text := trustsNobody(s.config); text != "" {
		s.log.Warn(text)
	}
	if ready != nil {
		ready(r)
	}
	return g.Wait()
}

// trustsNobody says that a table is for clients of which the configuration knows
// none; it is empty where that is not so.
func trustsNobody(c config.Config) string {
	if c.Postfix.ClientAccess == "" || len(c.Accounts.Trusted) > 0 {
		return ""
	}
	return "no trusted client is ever found to be hijacked: accounts.trusted names none, and postfix.client_access stops only those that a person does"
}

// enforceAgain brings gate and tables to what the journal says, and does and
// tells again what a crash interrupted. A database that cannot be written is no
// reason not to watch.
func (s *service) enforceAgain(ctx context.Context) error {
	pending, err := s.store.Pending(ctx) // before reconcile ends what is over: it is still to be told
	if err != nil {
		return err
	}
	if err := s.reconcile(ctx); err != nil {
		s.health.set("database", err)
		s.log.Error("starting without writing", "err", err)
	}
	s.resumeDone()
	var steps []step
	for _, d := range append(pending, s.untoldBefore...) {
		f, err := s.store.Finding(ctx, d.Finding)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		steps = append(steps, step{finding: f, decision: d, page: slices.Contains(s.paged, d.ID)})
	}
	s.untoldBefore = nil
	slices.SortStableFunc(steps, func(a, b step) int { // as they were decided, or the stronger silences the weaker
		return cmp.Or(a.decision.Time.Compare(b.decision.Time), cmp.Compare(a.decision.Action, b.decision.Action))
	})
	s.carryOut(ctx, steps)
	releases, err := s.store.UnfinishedReleases(ctx, time.Now().Add(-keepMessages))
	for _, r := range releases {
		s.finishRelease(ctx, r)
	}
	return err
}

// listenAPI also finds the token, or makes one. A nil listener: switched off.
func (s *service) listenAPI() (net.Listener, string, error) {
	if s.config.API.Listen == "" {
		return nil, "", nil
	}
	token, err := apiToken(s.config)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", s.config.API.Listen)
	if err != nil {
		return nil, "", fmt.Errorf("api: %w", err)
	}
	return l, token, nil
}

// listenAgents is where agents report; nil: there are none.
func (s *service) listenAgents() (net.Listener, error) {
	if s.fleet == nil {
		return nil, nil
	}
	l, err := net.Listen("tcp", s.config.Agents.Listen)
	if err != nil {
		return nil, fmt.Errorf("agents.listen: %w", err)
	}
	return l, nil
}

// apiToken is the configured one, or that of the token file, which is made if
// it is not there.
func apiToken(c config.Config) (string, error) {
	if c.API.Token != "" {
		return string(c.API.Token), nil
	}
	path := c.TokenPath()
	text, err := os.ReadFile(path)
	switch token := strings.TrimSpace(string(text)); {
	case err == nil && len(token) >= 16:
		return token, nil
	case err == nil:
		return "", fmt.Errorf("%s: the token is shorter than 16 characters; remove the file to have one made", path)
	case !errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("api token: %w", err)
	}
	token := rand.Text() + rand.Text()
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	if err := writeWhole(path, token+"\n", 0o640); err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	return token, nil
}

// writeWhole leaves no half-written file behind, as on a full disk.
func writeWhole(path, text string, mode os.FileMode) error {
	half := path + ".new"
	if err := os.WriteFile(half, []byte(text), mode); err != nil {
		return errors.Join(err, os.Remove(half))
	}
	return os.Rename(half, path)
}

// shutdownTime is how long open requests may take to end.
const shutdownTime = 5 * time.Second

func (s *service) serveAPI(ctx context.Context, l net.Listener, token string) error {
	server := (&web.Server{
		Watch: s, Fleet: s.desk(), Lists: s.listDesk(), Complaints: s.complaintDesk(), Users: users{s.pipeline}, Keeper: s.keeper(), Token: token, Log: s.log,
		Metrics: promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}),
	}).HTTPServer()
	stopped := make(chan struct{})
	go func() { // ends with ctx, which ends at the latest when run's group does
		defer close(stopped)
		<-ctx.Done()
		down, cancel := context.WithTimeout(context.Background(), shutdownTime)
		defer cancel()
		server.Shutdown(down)
	}()
	err := server.Serve(l)
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("api: %w", err)
	}
	<-stopped
	return nil
}
