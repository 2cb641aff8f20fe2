package app

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/internal/gate"
)

// demoLog is a Postfix log of three working days, made for the demo: six
// mailboxes, and at its end one of them being used by somebody else.
//
//go:embed demo/mail.log
var demoLog string

// demoLive is where the demo's present begins in demoLog.
var demoLive = time.Date(2026, 3, 20, 10, 0, 0, 0, time.UTC)

// A player is the demo's mail server: it writes demoLog into a file as a mail
// server would, in time, and asks the gate about each message as Postfix does.
// A message that the gate refuses leaves a reject line and no mail; one that
// it holds stays in the queue.
type player struct {
	path  string // log to write
	gate  string // policy service, as gate.Listen names it
	asked func(m *played)

	shift    time.Duration // from the log's time to ours
	messages map[string]*played
}

// A played message is one of the log's, and what the gate said about it.
type played struct {
	id, login  string
	client     string // host[address]
	recipients []string
	answer     string // "DUNNO", "REJECT 5.7.1 …", "HOLD …"; empty: not asked yet
}

// A playedLine is one line of the log and when it is due.
type playedLine struct {
	due     time.Time
	text    string
	message *played // nil: of none
}

// play writes the past at once and then the present as it comes. It returns
// when the log is at its end.
func (p *player) play(ctx context.Context) error {
	f, err := os.OpenFile(p.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	p.shift = -time.Until(demoLive).Truncate(time.Second)
	p.messages = map[string]*played{}
	var past strings.Builder
	var live []playedLine
	for line := range strings.Lines(demoLog) {
		at, rest, ok := cutStamp(line)
		if !ok {
			return fmt.Errorf("demo log: line without a stamp: %q", line)
		}
		l := playedLine{due: at.Add(p.shift), message: p.gather(rest)}
		l.text = l.due.Format("2006-01-02T15:04:05.000000Z07:00") + rest
		if at.Before(demoLive) {
			past.WriteString(l.text)
		} else {
			live = append(live, l)
		}
	}
	if _, err := f.WriteString(past.String()); err != nil {
		return err
	}
	return p.present(ctx, f, live)
}

// gather collects what the lines of one message say of it.
func (p *player) gather(line string) *played {
	_, text, _ := strings.Cut(line, "]: ")
	id, rest, ok := strings.Cut(text, ": ")
	if !ok || strings.Contains(id, " ") {
		return nil
	}
	m := p.messages[id]
	if m == nil {
		m = &played{id: id}
		p.messages[id] = m
	}
	if client, login, ok := strings.Cut(rest, ", sasl_method=PLAIN, sasl_username="); ok {
		m.client, m.login = strings.TrimPrefix(client, "client="), strings.TrimSpace(login)
	}
	if to, ok := strings.CutPrefix(rest, "to=<"); ok {
		to, _, _ = strings.Cut(to, ">")
		m.recipients = append(m.recipients, to)
	}
	return m
}

func (p *player) present(ctx context.Context, f *os.File, live []playedLine) error {
	for _, l := range live {
		if err := wait(ctx, time.Until(l.due)); err != nil {
			return err
		}
		text := l.text
		if l.message != nil {
			var err error
			if text, err = p.filtered(ctx, l); err != nil {
				return err
			}
		}
		if _, err := f.WriteString(text); err != nil {
			return err
		}
	}
	return nil
}

// filtered is what the log has of a line after the gate's answer about its
// message, which is asked for when the message's first line is due.
func (p *player) filtered(ctx context.Context, l playedLine) (string, error) {
	m := l.message
	first := m.answer == ""
	if first {
		if err := p.ask(ctx, m); err != nil {
			return "", err
		}
		p.asked(m)
	}
	head, rest, _ := strings.Cut(l.text, "]: ")
	switch verb, _, _ := strings.Cut(m.answer, " "); verb {
	case "DUNNO":
		return l.text, nil
	case "HOLD":
		if first {
			return fmt.Sprintf("%s]: NOQUEUE: hold: RCPT from %s: %s; from=<%s> to=<%s> proto=ESMTP helo=<pc>\n%s",
				head, m.client, p.reason(m), m.login, m.recipients[0], l.text), nil
		}
		if strings.Contains(rest, "message-id=") {
			return l.text, nil // cleanup has it; the queue manager does not
		}
	default:
		if first {
			return fmt.Sprintf("%s]: NOQUEUE: reject: RCPT from %s: 554 5.7.1 %s; from=<%s> to=<%s> proto=ESMTP helo=<pc>\n",
				head, m.client, p.reason(m), m.login, m.recipients[0]), nil
		}
	}
	return "", nil
}

func (p *player) reason(m *played) string {
	_, text, _ := strings.Cut(m.answer, " ")
	return fmt.Sprintf("<%s>: Recipient address rejected: %s", m.recipients[0], strings.TrimPrefix(text, "5.7.1 "))
}

// ask asks as smtpd does: at each recipient, and at the end of the message.
func (p *player) ask(ctx context.Context, m *played) error {
	_, ip, _ := strings.Cut(strings.TrimSuffix(m.client, "]"), "[")
	common := []string{"protocol_name=ESMTP", "instance=" + m.id, "sasl_username=" + m.login, "sender=" + m.login, "client_address=" + ip}
	m.answer = "DUNNO"
	for _, to := range m.recipients {
		answer, err := gate.Ask(ctx, p.gate, append(common, "protocol_state=RCPT", "recipient="+to)...)
		if err != nil {
			return err
		}
		if answer != "DUNNO" {
			m.answer = answer
		}
	}
	if strings.HasPrefix(m.answer, "REJECT") || strings.HasPrefix(m.answer, "DEFER") {
		return nil
	}
	_, err := gate.Ask(ctx, p.gate, append(common, "protocol_state=END-OF-MESSAGE", "queue_id="+m.id, fmt.Sprintf("recipient_count=%d", len(m.recipients)))...)
	return err
}

func cutStamp(line string) (time.Time, string, bool) {
	stamp, _, ok := strings.Cut(line, " ")
	if !ok {
		return time.Time{}, "", false
	}
	at, err := time.Parse(time.RFC3339Nano, stamp)
	return at, line[len(stamp):], err == nil
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
