package detector

import (
	"math"
	"net/netip"
)

// A Place is where on earth an address is used, as far as a database knows.
type Place struct {
	Country             string // two letters (ISO 3166-1); empty if unknown
	ASN                 uint32 // autonomous system; 0 if unknown
	Latitude, Longitude float64
	Located             bool // whether latitude and longitude, in degrees, are known
}

// Nobody is in two places far apart at once: an account that is used from where it
// could not have travelled to is used by two people, or through a network far away
// (Schaefer 2014). Only networks that are not the account's own, nor of an operator
// it uses, are looked at: a company's gateway abroad is one of its places.
const (
	travelStep = 3.0
	travelFar  = 500.0 // km; databases are wrong about less
	travelFast = 900.0 // km/h
	earth      = 6371.0

	// A place is remembered as a field of two degrees each way, so that is how far
	// two may be nearer than they look: its diagonal at the equator.
	fieldSize = 2.0
	fields    = 90 * 180
	fieldSlip = 320.0
)

// fieldOf is the number of a place's field; 0 for one that is not known.
func fieldOf(p Place) uint16 {
	if !p.Located || !(math.Abs(p.Latitude) <= 90 && math.Abs(p.Longitude) <= 180) {
		return 0
	}
	lat := min(int((p.Latitude+90)/fieldSize), 89)
	lon := min(int((p.Longitude+180)/fieldSize), 179)
	return uint16(1 + lat*180 + lon)
}

// middle is the middle of a field, in radians.
func middle(field uint16) (lat, lon float64) {
	n := int(field - 1)
	return (float64(n/180)*fieldSize + fieldSize/2 - 90) * math.Pi / 180, (float64(n%180)*fieldSize + fieldSize/2 - 180) * math.Pi / 180
}

// apart is how far two fields are from each other at least, in km along a great
// circle.
func apart(a, b uint16) float64 {
	lat1, lon1 := middle(a)
	lat2, lon2 := middle(b)
	h := math.Pow(math.Sin((lat2-lat1)/2), 2) + math.Cos(lat1)*math.Cos(lat2)*math.Pow(math.Sin((lon2-lon1)/2), 2)
	return max(0, 2*earth*math.Asin(math.Sqrt(min(h, 1)))-fieldSlip)
}

// tooFast reports whether nobody could have come to n from where the account was
// used last, within a day.
func (l *logins) tooFast(n *network, now int64) bool {
	var last *network
	for i := range l.nets {
		if r := &l.nets[i]; r != n && r.field != 0 && !r.old(now) && (last == nil || r.at > last.at) {
			last = r
		}
	}
	if last == nil || n.field == 0 {
		return false
	}
	km := apart(n.field, last.field)
	hours := float64(max(last.apart(now), second)) / float64(hour)
	return km > travelFar && km/hours > travelFast
}

// locate notes where the network is, if that can be known.
func (d *Detector) locate(n *network, client netip.Addr) {
	if d.cfg.Locate == nil {
		return
	}
	p := d.cfg.Locate(client)
	n.asn, n.field = p.ASN, fieldOf(p)
	n.bits = n.bits&^netCountry | countryOf(p.Country)
}

// countryOf numbers a country's two letters; 0 for what are none.
func countryOf(letters string) uint16 {
	if len(letters) != 2 {
		return 0
	}
	a, b := uint16(letters[0]|0x20-'a'), uint16(letters[1]|0x20-'a')
	if a > 25 || b > 25 {
		return 0
	}
	return 1 + a*26 + b
}
