package mailq

func (p *Parser) exim(ev *Event, b []byte, pid uint64) bool { return false }

type directory struct{}
