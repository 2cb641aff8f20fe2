package gate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func instanceOf(t testing.TB, text string) instance {
	t.Helper()
	in, ok := key([]byte(text))
	if !ok {
		t.Fatalf("%q is no instance", text)
	}
	return in
}

func TestGathererKeepsMessagesApart(t *testing.T) {
	var g gatherer
	a, b := instanceOf(t, "1.a"), instanceOf(t, "1.b")
	g.add(a, []byte("r1@ok.test"), true, noon)
	g.add(b, []byte("x@ok.test"), false, noon)
	g.add(a, []byte("r2@ok.test"), false, noon)
	g.add(a, []byte("r2@ok.test"), true, noon) // repeated: neither kept nor charged again
	g.add(a, []byte("r1@ok.test"), true, noon) // the client named it twice, apart: charged

	m := g.end(a)
	got := splitLines(string(m.recipients), m.n)
	if diff := cmp.Diff(got, []string{"r1@ok.test", "r2@ok.test", "r1@ok.test"}); diff != "" {
		t.Errorf("recipients (-got +want):\n%s", diff)
	}
	if m.charged != 2 {
		t.Errorf("charged %d, want 2", m.charged)
	}
	if g.end(a) != nil {
		t.Error("the message ended twice")
	}
	g.release(m)
	g.add(a, []byte("r9@ok.test"), false, noon) // in the memory of the first
	if m := g.end(a); m.n != 1 || m.charged != 0 || string(m.recipients) != "r9@ok.test\n" {
		t.Errorf("memory was used again uncleaned: %+v", m)
	}
	if m := g.end(b); m == nil || string(m.recipients) != "x@ok.test\n" {
		t.Errorf("the other message: %+v", m)
	}
	if g.oldest != nil || g.newest != nil || g.bytes != 0 {
		t.Errorf("something stays behind: %d bytes", g.bytes)
	}
}

func TestGathererIsBounded(t *testing.T) {
	t.Run("messages", func(t *testing.T) {
		var g gatherer
		for i := range maxMessages + 10 {
			g.add(instanceOf(t, fmt.Sprint(i)), []byte("r@ok.test"), false, noon)
		}
		if open, evicted := g.count(); open != maxMessages || evicted != 10 {
			t.Errorf("%d open, %d evicted", open, evicted)
		}
		if g.end(instanceOf(t, "9")) != nil || g.end(instanceOf(t, "10")) == nil {
			t.Error("evicted another than the oldest")
		}
	})
	t.Run("age", func(t *testing.T) {
		var g gatherer
		g.add(instanceOf(t, "old"), []byte("r@ok.test"), false, noon)
		g.add(instanceOf(t, "new"), []byte("r@ok.test"), false, noon.Add(maxMessageAge+time.Second))
		if open, evicted := g.count(); open != 1 || evicted != 1 {
			t.Errorf("%d open, %d evicted", open, evicted)
		}
	})
	t.Run("recipients", func(t *testing.T) {
		var g gatherer
		for i := range maxRecipients + 10 {
			g.add(instanceOf(t, "a"), fmt.Append(nil, i, "@ok.test"), true, noon)
		}
		m := g.end(instanceOf(t, "a"))
		if m.n != maxRecipients || m.charged != maxRecipients+10 {
			t.Errorf("%d kept, %d charged", m.n, m.charged)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		var g gatherer
		long := []byte(strings.Repeat("r", 10_000))
		for i := range 2 * maxGathered / len(long) {
			g.add(instanceOf(t, fmt.Sprint(i)), long, false, noon)
		}
		if g.bytes > maxGathered {
			t.Errorf("%d bytes kept", g.bytes)
		}
	})
}
