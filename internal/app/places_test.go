package app

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"

	"github.com/vedetta-watch/vedetta/detector"
	"github.com/vedetta-watch/vedetta/internal/config"
)

// writePlaces makes a database of the type, with a value for each network.
func writePlaces(t *testing.T, path, kind string, values map[string]mmdbtype.DataType) {
	t.Helper()
	w, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: kind, IncludeReservedNetworks: true, RecordSize: 24})
	if err != nil {
		t.Fatal(err)
	}
	for network, v := range values {
		_, n, err := net.ParseCIDR(network)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Insert(n, v); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if _, err := w.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func country(code string) mmdbtype.Map {
	return mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String(code)}}
}

func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	c := config.GeoIP{Country: filepath.Join(dir, "country.mmdb"), ASN: filepath.Join(dir, "asn.mmdb")}
	writePlaces(t, c.Country, "GeoLite2-Country", map[string]mmdbtype.DataType{"203.0.1.0/24": country("IT"), "2001:db8:1::/48": country("FR")})
	writePlaces(t, c.ASN, "GeoLite2-ASN", map[string]mmdbtype.DataType{"203.0.0.0/16": mmdbtype.Map{"autonomous_system_number": mmdbtype.Uint32(64500)}})
	p := newPlaces(c)
	if where := p.Locate(netip.MustParseAddr("203.0.1.9")); where != (detector.Place{}) {
		t.Errorf("before it is read: %+v", where)
	}
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	locates := func(want string, asn uint32, client string) {
		t.Helper()
		if where := p.Locate(netip.MustParseAddr(client)); where != (detector.Place{Country: want, ASN: asn}) {
			t.Errorf("%s: %+v, want %q and %d", client, where, want, asn)
		}
	}
	locates("IT", 64500, "203.0.1.9")
	locates("IT", 64500, "::ffff:203.0.1.9")
	locates("FR", 0, "2001:db8:1::7")
	locates("", 64500, "203.0.2.9")
	locates("", 0, "192.0.2.1")

	// What cannot be read leaves the database before in use, and a new one is read.
	for text, want := range map[string]string{"": "country.mmdb", "no database": "country.mmdb", strings.Repeat("\xab\xcd\xefMaxMind.com", 3): "country.mmdb"} {
		if err := os.WriteFile(c.Country, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: error %v", text, err)
		}
		locates("IT", 64500, "203.0.1.9")
	}
	writePlaces(t, c.Country, "GeoLite2-ASN", nil)
	if err := p.load(); err == nil || !strings.Contains(err.Error(), "Country or City") {
		t.Errorf("a database of something else: %v", err)
	}
	writePlaces(t, c.Country, "GeoLite2-City", map[string]mmdbtype.DataType{"203.0.1.0/24": country("ES")})
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	locates("ES", 64500, "203.0.1.9")
	if err := os.Remove(c.ASN); err != nil {
		t.Fatal(err)
	}
	if err := p.load(); err == nil || !strings.Contains(err.Error(), "asn.mmdb") {
		t.Errorf("a file that is gone: %v", err)
	}
}

// Mail from five countries on one day blocks by itself, and only with a database.
func TestReplayKnowsCountries(t *testing.T) {
	dir := t.TempDir()
	values := map[string]mmdbtype.DataType{}
	var log strings.Builder
	for i, code := range []string{"IT", "FR", "BR", "VN", "US"} {
		values[fmt.Sprintf("203.0.%d.0/24", i)] = country(code)
		at := time.Date(2026, 3, 2, 9+i, 0, 0, 0, time.UTC).Format(time.RFC3339)
		fmt.Fprintf(&log, "%s mx1 postfix/submission/smtpd[833]: 4b0000000%dz1b2C: client=pc[203.0.%d.7], sasl_method=PLAIN, sasl_username=alice@shop.test\n", at, i, i)
		fmt.Fprintf(&log, "%s mx1 postfix/qmgr[829]: 4b0000000%dz1b2C: from=<alice@shop.test>, size=900, nrcpt=1 (queue active)\n", at, i)
		fmt.Fprintf(&log, "%s mx1 postfix/smtp[840]: 4b0000000%dz1b2C: to=<bob@ok.test>, relay=mx.ok.test[192.0.2.7]:25, delay=0.05, delays=0.01/0/0.02/0.02, dsn=2.0.0, status=sent (250 OK)\n", at, i)
	}
	path := filepath.Join(dir, "mail.log")
	if err := os.WriteFile(path, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	c := config.Default()
	replay := func() (steps string, err error) {
		var out bytes.Buffer
		err = Replay(t.Context(), ReplayOptions{Config: c, Paths: []string{path}, Out: &out, Err: io.Discard, Now: time.Now()})
		return out.String(), err
	}
	if steps, err := replay(); err != nil || strings.Contains(steps, "block") {
		t.Errorf("without a database: %v\n%s", err, steps)
	}
	c.GeoIP.Country = filepath.Join(dir, "country.mmdb")
	if _, err := replay(); err == nil || !strings.Contains(err.Error(), "geoip: ") {
		t.Errorf("without the file: %v", err)
	}
	writePlaces(t, c.GeoIP.Country, "DBIP-Country-Lite", values)
	if steps, err := replay(); err != nil || !strings.Contains(steps, "block") || !strings.Contains(steps, "alice@shop.test") {
		t.Errorf("with one: %v\n%s", err, steps)
	}
}

// A City database says where on earth an address is, too.
func TestPlacesOfACity(t *testing.T) {
	c := config.GeoIP{Country: filepath.Join(t.TempDir(), "city.mmdb")}
	rome := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("IT")},
		"location": mmdbtype.Map{"latitude": mmdbtype.Float64(41.9), "longitude": mmdbtype.Float64(12.5)}}
	nowhere := mmdbtype.Map{"country": mmdbtype.Map{"iso_code": mmdbtype.String("FR")}, "location": mmdbtype.Map{"latitude": mmdbtype.String("north")}}
	writePlaces(t, c.Country, "GeoLite2-City", map[string]mmdbtype.DataType{"203.0.1.0/24": rome, "203.0.2.0/24": nowhere})
	p := newPlaces(c)
	if err := p.load(); err != nil {
		t.Fatal(err)
	}
	for client, want := range map[string]detector.Place{
		"203.0.1.9": {Country: "IT", Latitude: 41.9, Longitude: 12.5, Located: true},
		"203.0.2.9": {Country: "FR"},
		"192.0.2.1": {},
	} {
		if where := p.Locate(netip.MustParseAddr(client)); where != want {
			t.Errorf("%s: %+v, want %+v", client, where, want)
		}
	}
}
