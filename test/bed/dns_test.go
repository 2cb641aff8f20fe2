package bed_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/test/bed"
)

// TestDNS looks an entry up through Unbound, publishes other data, and sees
// what is nowhere get no answer.
func TestDNS(t *testing.T) {
	d := bed.StartDNS(t, []bed.DNSZone{{Name: "bl.list.test", Type: "ip4set", Data: ":127.0.0.2:listed $\n127.0.0.2\n198.51.100.20"}})
	r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, d.Resolver)
	}}
	look := func(name string) ([]string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return r.LookupHost(ctx, name)
	}
	if got, err := look("20.100.51.198.bl.list.test."); !slices.Equal(got, []string{"127.0.0.2"}) {
		t.Errorf("a listed address: %q, %v", got, err)
	}
	if texts, err := r.LookupTXT(t.Context(), "20.100.51.198.bl.list.test."); !slices.Equal(texts, []string{"listed 198.51.100.20"}) {
		t.Errorf("its reason: %q, %v", texts, err)
	}
	if got, err := look("21.100.51.198.bl.list.test."); !isNotFound(err) {
		t.Errorf("an address that is not listed: %q, %v", got, err)
	}
	if got, err := look("20.100.51.198.bl.other.net."); err == nil || isNotFound(err) {
		t.Errorf("a zone that is nowhere: %q, %v", got, err)
	}
	d.Publish("bl.list.test", ":127.0.0.2:listed $\n127.0.0.2\n198.51.100.22")
	deadline := time.Now().Add(20 * time.Second)
	for got, err := look("22.100.51.198.bl.list.test."); err != nil; got, err = look("22.100.51.198.bl.list.test.") {
		if time.Now().After(deadline) {
			t.Fatalf("an address that is listed later: %q, %v", got, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func isNotFound(err error) bool {
	dnsErr, ok := err.(*net.DNSError)
	return ok && dnsErr.IsNotFound
}
