package mailq

// maxParked bounds what hooks told about messages the log has not shown yet.
const maxParked = 4096

// Note takes what an inline hook was told about a message at its end, when
// its queue id and recipients were known. The log tells about the same
// message: whichever comes first, it counts once, and each recipient is new
// once. If the message has been counted already, Note returns an Addressed
// event with the recipients that were not named then, if there are any.
func (p *Parser) Note(e Envelope) (ev Event, ok bool) {
	if e.QueueID == "" || len(e.QueueID) > 64 || len(e.Recipients) == 0 {
		return ev, false
	}
	if !p.ready {
		p.prepare()
	}
	if o := p.anywhere(e.Host, e.QueueID); o != nil && (e.Login == "" || p.login([]byte(e.Login)) == o.account) {
		ok = p.join(&ev, o, &e)
		if ok {
			p.stats.Events++
		}
		return ev, ok
	}
	p.park(e)
	return ev, false
}

// anywhere finds an open message by queue id on one host, or on any.
func (p *Parser) anywhere(name, id string) *open {
	for _, h := range p.hosts {
		if name != "" && h.name != name {
			continue
		}
		for _, n := range h.instances {
			if o := p.open.byKey.get(p.key(n, []byte(id))); o != nil {
				return o
			}
		}
	}
	return nil
}

// park keeps a note until the log shows its message. Notes that are never
// asked for make room for the next ones.
func (p *Parser) park(e Envelope) {
	if p.notes == nil || len(p.notes) >= maxParked {
		p.notes = make(map[string]Envelope)
	}
	p.notes[e.QueueID] = e
	p.parked = len(p.notes)
}

// unpark gives a message that has just begun the note that waited for it.
func (p *Parser) unpark(o *open) {
	if p.parked == 0 {
		return
	}
	e, ok := p.notes[o.id]
	if !ok || e.Host != "" && e.Host != o.host {
		return
	}
	delete(p.notes, o.id)
	p.parked = len(p.notes)
	if e.Login != "" && p.login([]byte(e.Login)) != o.account {
		return // of an earlier message with the same id
	}
	p.join(nil, o, &e)
}

// join adds a note's recipients to a message. Of mail that is nobody's they
// are not kept: who answers for it, if anybody, shows when it leaves.
func (p *Parser) join(ev *Event, o *open, e *Envelope) bool {
	if o.account == "" {
		return false
	}
	var added []Recipient
	for _, addr := range e.Recipients {
		if r := p.recipient([]byte(addr)); o.named.name(r) {
			added = append(added, r)
			p.addDomain(o, r.Domain)
		}
	}
	p.open.changed(o)
	if len(added) == 0 {
		return false
	}
	if !o.is(isSubmitted) && o.charged != o.account {
		o.noted = append(o.noted, added...)
		return false
	}
	p.fill(ev, Addressed, o)
	ev.Time, ev.Host = e.Time.UTC(), o.host
	ev.Rcpts = max(int(o.rcpts), o.named.n)
	ev.New = added
	return true
}
