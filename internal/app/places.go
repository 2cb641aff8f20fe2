package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oschwald/maxminddb-golang/v2"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
)

// places says where clients are, from databases in MaxMind's format. A file
// that is replaced is read again. Its methods may be called from any goroutine,
// except refresh.
type places struct {
	country, asn placeFile
}

// A placeFile is one database, and when it was written.
type placeFile struct {
	path  string // empty: none
	holds string // part of the type of what it should be
	read  atomic.Pointer[maxminddb.Reader]
	at    time.Time
	size  int64
	eye
}

func newPlaces(c config.GeoIP) *places {
	p := &places{country: placeFile{path: c.Country, holds: "Country,City,Enterprise"}, asn: placeFile{path: c.ASN, holds: "ASN,ISP,Enterprise"}}
	for _, f := range p.files() {
		f.eye = eye{kind: "places", subject: f.path}
	}
	return p
}

// files are the configured ones.
func (p *places) files() (files []*placeFile) {
	for _, f := range []*placeFile{&p.country, &p.asn} {
		if f.path != "" {
			files = append(files, f)
		}
	}
	return files
}

// load reads all databases that have changed.
func (p *places) load() error {
	var errs []error
	for _, f := range p.files() {
		errs = append(errs, f.load())
	}
	return errors.Join(errs...)
}

// load reads the database if it has changed. One that cannot be read leaves the one before in use.
func (f *placeFile) load() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if info.ModTime().Equal(f.at) && info.Size() == f.size {
		return nil
	}
	text, err := os.ReadFile(f.path) // not mapped: it may be overwritten in place
	if err != nil {
		return err
	}
	r, err := maxminddb.OpenBytes(text)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	if !f.suits(r.Metadata.DatabaseType) {
		return fmt.Errorf("%s: a database of type %q does not say what is wanted here: one whose type has %s in it does", f.path, clean(r.Metadata.DatabaseType), strings.ReplaceAll(f.holds, ",", " or "))
	}
	f.read.Store(r)
	f.at, f.size = info.ModTime(), info.Size()
	return nil
}

func (f *placeFile) suits(kind string) bool {
	for part := range strings.SplitSeq(f.holds, ",") {
		if strings.Contains(kind, part) {
			return true
		}
	}
	return false
}

// find reads one value of a client; nothing where the database has none or is
// damaged there.
func (f *placeFile) find(client netip.Addr, value any, at ...any) {
	if r := f.read.Load(); r != nil {
		_ = r.Lookup(client.Unmap()).DecodePath(value, at...)
	}
}

// Locate says where a client is, as far as the databases know. Only a City
// database has latitude and longitude.
func (p *places) Locate(client netip.Addr) (where detector.Place) {
	p.country.find(client, &where.Country, "country", "iso_code")
	p.asn.find(client, &where.ASN, "autonomous_system_number")
	var at struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
	}
	if p.country.find(client, &at, "location"); at.Latitude != nil && at.Longitude != nil {
		where.Latitude, where.Longitude, where.Located = *at.Latitude, *at.Longitude, true
	}
	return where
}

// lookAtPlaces reads databases that were replaced, and reports those that cannot
// be read.
func (s *service) lookAtPlaces(ctx context.Context) {
	for _, f := range s.judge.places.files() {
		if err := f.load(); err != nil {
			s.blind(ctx, &f.eye, fmt.Errorf("geoip: %w", err))
		} else {
			s.sees(&f.eye)
		}
	}
}
