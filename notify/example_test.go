package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vedetta-watch/vedetta/notify"
)

func genuine(secret []byte, h http.Header, body []byte) bool {
	id, stamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if age := time.Since(time.Unix(seconds, 0)).Abs(); err != nil || age > 5*time.Minute {
		return false // too old: somebody sends it again
	}
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	return hmac.Equal([]byte(h.Get("webhook-signature")), []byte(want))
}

// A receiver checks the signature before it believes anything else.
func ExampleWebhook() {
	secret := "a secret of both sides"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Println("genuine:", genuine([]byte(secret), r.Header, body))
		fmt.Println("changed:", genuine([]byte(secret), r.Header, append(body, ' ')))
	}))
	defer server.Close()

	channel := notify.Webhook{URL: server.URL, Secret: secret}
	err := channel.Send(context.Background(), notify.Message{ID: "i-1/block", Title: "alice@shop.test: blocked"})
	fmt.Println(err)
	// Output:
	// genuine: true
	// changed: false
	// <nil>
}

// block returns the first fenced block of the language in docs/alerts.md.
func block(t *testing.T, language string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/alerts.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(page)
	if found == nil {
		t.Fatalf("docs/alerts.md has no %s block", language)
	}
	return string(found[1])
}

// What the page shows is what ExampleWebhook runs.
func TestDocumentedGo(t *testing.T) {
	source, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	if code := block(t, "go"); !strings.Contains(string(source), code) {
		t.Errorf("example_test.go does not hold what docs/alerts.md shows:\n%s", code)
	}
}

func TestDocumentedPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	answers := make(chan string, 3)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for _, secret := range []string{"a secret of both sides", "another"} {
			script := block(t, "python") + `
import sys
names = ("webhook-id", "webhook-timestamp", "webhook-signature")
print(genuine(sys.argv[1].encode(), dict(zip(names, sys.argv[2:])), sys.stdin.buffer.read()))`
			run := exec.CommandContext(t.Context(), python, "-c", script, secret,
				r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), r.Header.Get("webhook-signature"))
			run.Stdin = strings.NewReader(string(body))
			out, err := run.CombinedOutput()
			if err != nil {
				t.Errorf("%v: %s", err, out)
			}
			answers <- strings.TrimSpace(string(out))
		}
	}))
	defer server.Close()
	channel := notify.Webhook{URL: server.URL, Secret: "a secret of both sides"}
	if err := channel.Send(t.Context(), notify.Message{ID: "i-1/block", Title: "älice@shop.test"}); err != nil {
		t.Fatal(err)
	}
	if right, wrong := <-answers, <-answers; right != "True" || wrong != "False" {
		t.Errorf("with the secret %s, with another %s", right, wrong)
	}
}

// The page shows messages as they are.
func TestDocumentedMail(t *testing.T) {
	mail, err := os.ReadFile("testdata/blocked.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got := block(t, "text"); got != string(mail) {
		t.Errorf("docs/alerts.md shows another mail than testdata/blocked.txt:\n%s", got)
	}
}
