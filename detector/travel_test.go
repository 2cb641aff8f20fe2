package detector

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/mailq"
)

var (
	rome   = Place{Country: "IT", ASN: 1, Latitude: 41.9, Longitude: 12.5, Located: true}
	paris  = Place{Country: "FR", ASN: 2, Latitude: 48.9, Longitude: 2.3, Located: true}
	tokyo  = Place{Country: "JP", ASN: 3, Latitude: 35.7, Longitude: 139.7, Located: true}
	mobile = Place{Country: "JP", ASN: 1, Latitude: 35.7, Longitude: 139.7, Located: true} // of the operator at home
)

// An account that is used from where nobody could have come to in the time is
// used by somebody else. A trip, a gateway of its own or its operator's next
// network are none of that.
func TestTravel(t *testing.T) {
	for _, c := range []struct {
		name  string
		there Place
		after time.Duration
		want  bool
	}{
		{"Rome to Tokyo in an hour", tokyo, time.Hour, true},
		{"Rome to Tokyo in a moment", tokyo, 0, true},
		{"Rome to Tokyo by air", tokyo, 13 * time.Hour, false},
		{"Rome to Paris in two hours", paris, 2 * time.Hour, false},
		{"its operator's network elsewhere", mobile, time.Hour, false},
		{"nobody knows where", Place{Country: "JP", ASN: 3}, time.Hour, false},
		{"no place on earth", Place{Latitude: math.NaN(), Longitude: 1e9, Located: true}, time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.d.cfg.Locate = func(a netip.Addr) Place {
				if a.As4()[0] == 203 {
					return c.there
				}
				return rome
			}
			evening := w.office(5, 25)
			w.send(alice, evening, mail{to: []string{"contact1@client1.test"}, client: "10.1.1.5"})
			before := w.d.accounts[alice].log.s
			w.send(alice, evening.Add(c.after), mail{to: []string{"contact1@client1.test"}, client: "203.0.113.9"})
			l := &w.d.accounts[alice].log
			if l.far != c.want || (l.s-before > netTop+secondLand) != c.want {
				t.Errorf("far: %v, and it says %v, want %v", l.far, l.s-before, c.want)
			}
			if worst := w.worst(alice); worst > observed {
				t.Errorf("a journey alone comes to level %d", worst)
			}
		})
	}
}

// A company's gateway abroad is one of its places, once it is known.
func TestOwnGatewayIsNoJourney(t *testing.T) {
	w := newWorld(t, nil)
	w.d.cfg.Locate = func(a netip.Addr) Place {
		if a.As4()[0] == 203 {
			return tokyo
		}
		return rome
	}
	w.office(5, 25)
	for day := range 5 {
		for k, client := range []string{"10.1.1.5", "203.0.113.9", "10.1.1.5", "203.0.113.9"} {
			at := monday.AddDate(0, 0, 25+day).Add(time.Duration(9+k) * time.Hour)
			w.d.accounts[alice].log.far = false
			w.send(alice, at, mail{to: []string{"contact1@client1.test"}, client: client})
			if day > 0 && w.d.accounts[alice].log.far {
				t.Fatalf("day %d: the gateway is still far away", day)
			}
		}
	}
}

// A field is never taken for farther away than it is.
func TestFieldsAreNeverTooFarApart(t *testing.T) {
	at := func(lat, lon float64) Place { return Place{Latitude: lat, Longitude: lon, Located: true} }
	for i := range uint64(20_000) {
		h := recipientHash(i)
		a := at(float64(h%1800)/10-90, float64(h>>16%3600)/10-180)
		b := at(float64(h>>32%1800)/10-90, float64(h>>48%3600)/10-180)
		if got, real := apart(fieldOf(a), fieldOf(b)), greatCircle(a, b); got > real+1 {
			t.Fatalf("%+v and %+v: %.0f km, but they are %.0f apart", a, b, got, real)
		}
	}
	for _, p := range []Place{at(90, 180), at(-90, -180), at(0, 0), at(90, -180)} {
		if f := fieldOf(p); f == 0 || f > fields {
			t.Errorf("%+v lies in field %d", p, f)
		}
	}
}

// greatCircle is how far two places are from each other by the spherical law of
// cosines, in km.
func greatCircle(a, b Place) float64 {
	r := func(d float64) float64 { return d * math.Pi / 180 }
	c := math.Sin(r(a.Latitude))*math.Sin(r(b.Latitude)) + math.Cos(r(a.Latitude))*math.Cos(r(b.Latitude))*math.Cos(r(a.Longitude-b.Longitude))
	return earth * math.Acos(max(-1, min(1, c)))
}

func TestCountryOf(t *testing.T) {
	seen := map[uint16]string{}
	for a := 'A'; a <= 'Z'; a++ {
		for b := 'A'; b <= 'Z'; b++ {
			letters := fmt.Sprintf("%c%c", a, b)
			n := countryOf(letters)
			if n == 0 || n > netCountry || seen[n] != "" {
				t.Fatalf("%s is number %d, as is %q", letters, n, seen[n])
			}
			seen[n] = letters
		}
	}
	for _, none := range []string{"", "I", "ITA", "1T", "\xff\x00"} {
		if n := countryOf(none); n != 0 {
			t.Errorf("%q is number %d", none, n)
		}
	}
}

// Without a database of operators a phone comes from ever other /24 of its carrier's few
// /16: more than twenty on a busy day are no botnet.
func TestPhoneOfOneCarrier(t *testing.T) {
	const phone = mailq.Account("phone@office.test")
	day := func(w *world, at time.Time, n, seed int) {
		for i := range n {
			client := fmt.Sprintf("109.%d.%d.7", 40+i%3, recipientHash(uint64(seed*100+i))%250)
			w.send(phone, at.Add(time.Duration(i)*15*time.Minute), mail{to: []string{fmt.Sprintf("contact%d@client7.test", i%8)}, client: client})
		}
	}
	w := newWorld(t, nil)
	w.office(10, 25)
	for d := range 25 {
		day(w, monday.AddDate(0, 0, d).Add(8*time.Hour), 4, d)
	}
	w.forget()
	day(w, monday.AddDate(0, 0, 26).Add(8*time.Hour), 30, 26)
	if worst := w.worst(phone); worst > observed {
		t.Errorf("a phone on a busy day came to %v: %+v", worst, w.last(phone))
	}
}

// A hard rule is over when what it says is no longer so: a day later the owner's letters
// are ordinary ones again, and nothing is told of them.
func TestHardRuleEnds(t *testing.T) {
	w := newWorld(t, nil)
	w.office(10, 25)
	at := monday.AddDate(0, 0, 26)
	for i := range 40 {
		w.send(alice, at.Add(time.Duration(i)*10*time.Minute), mail{to: []string{"contact1@client1.test"}, client: fmt.Sprintf("%d.7.1.9", 60+i)})
	}
	if w.last(alice).Hard == "" {
		t.Fatal("40 networks fired no hard rule")
	}
	for day := range 8 {
		w.forget()
		for i := range 20 {
			to := fmt.Sprintf("new%d@client%d.test", day*20+i, i)
			w.send(alice, at.AddDate(0, 0, day).Add(8*time.Hour+time.Duration(i)*47*time.Minute), mail{to: []string{"contact1@client1.test", to}[i%2 : i%2+1], client: "10.1.1.5"})
		}
		if day > 1 && len(w.found) > 0 && w.last(alice).Hard != "" {
			t.Errorf("%d days later the owner's letters made %+v", day, w.found[0])
		}
	}
}
