package detector

import (
	"strings"

	"github.com/vedetta-watch/vedetta/mailq"
)

// scripts watches where mail by program comes from. Scripts that appear in
// directories meant for uploads and temporary files are how break-ins send;
// a script never seen before, on a server long watched, is worth a
// little.
type scripts struct {
	chart
	known [4]uint32
	next  uint8
	path  string // the one that spoke
	odd   bool   // it lies where no script should
}

const (
	scriptOdd   = 6.0 // told at once
	scriptAgain = .5  // each further message of one that lies where no script should, …
	scriptYoung = day // … so long after it first sent
	scriptNew   = 1.0
	scriptsTop  = 12.0
	settledIn   = 7 * day // how long we must have watched before new means new
)

// ran takes the script that a message came from.
func (d *Detector) ran(a *account, script string, now int64) {
	path := script
	if path == "" && a.name.Kind() == mailq.KindScript {
		path = strings.TrimPrefix(string(a.name), "script:")
	}
	if path == "" {
		return
	}
	s := &a.seldom().scr
	h := hashOf(path)
	for _, k := range s.known {
		if k == h {
			d.ranAgain(a, now)
			return
		}
	}
	s.known[s.next%4] = h
	s.next = (s.next + 1) % 4
	x := float32(0)
	s.odd = oddPlace(path)
	if s.odd {
		x += scriptOdd
	}
	if now-d.fleet.first > settledIn {
		x += scriptNew
	}
	if x == 0 {
		return
	}
	s.path = clip(path, 128)
	s.add(x, scriptsTop, now)
	a.begin(nil, now)
	a.say(familyScript, s.s)
}

// ranAgain takes a further message of a script.
func (d *Detector) ranAgain(a *account, now int64) {
	s := &a.rare.scr
	if s.odd && s.s > 0 && since(a.first, now) < scriptYoung {
		s.add(scriptAgain, scriptsTop, now)
		a.say(familyScript, s.s)
	}
}

// oddPlaces are directories that hold data, never programs.
var oddPlaces = [...]string{"/uploads/", "/upload/", "/cache/", "/tmp/", "/temp/", "/images/", "/img/", "/.well-known/", "/files/", "/logs/", "/fonts/"}

// oddPlace reports whether a script lies where no script should.
func oddPlace(path string) bool {
	p := strings.ToLower(path)
	if !strings.HasSuffix(p, ".php") {
		p += "/"
	}
	for _, odd := range oddPlaces {
		if strings.Contains(p, odd) {
			return true
		}
	}
	return strings.HasPrefix(p, "/dev/shm/") || strings.Contains(p, "/.")
}

func (a *account) scriptText() string {
	if a.rare.scr.odd {
		return "sent by " + a.rare.scr.path + ", where no script should be"
	}
	return "sent by " + a.rare.scr.path + ", which never sent mail before"
}
