package gate

import (
	"bytes"
	"strings"
	"testing"
)

// FuzzParse feeds requests. Whatever the bytes, the parser believes each
// attribute from one line only, and what it believes is in the request.
func FuzzParse(f *testing.F) {
	f.Add(strings.TrimSuffix(rcpt("alice@shop.test", "341.6b028d6b.39fbd.0", "r1@ok.test"), "\n"))
	f.Add(strings.TrimSuffix(end("alice@shop.test", "341.6b028d6b.39fbd.0", 2), "\n"))
	f.Add("request=smtpd_access_policy\nsasl_username=a\nsasl_username=b")
	f.Add("request=smtpd_access_policy\nsender=\x00\r=\xff\nsize=99999999999999999999999\nrecipient_count=-1")
	f.Add("=\n\n=")
	f.Fuzz(func(t *testing.T, text string) {
		var q query
		if q.parse([]byte(text)) != nil {
			return
		}
		if !strings.Contains(text, "request=smtpd_access_policy") {
			t.Error("a request without its name was read")
		}
		r := q.request([]byte("r1@ok.test\nr2@ok.test\n"), 2)
		if r.Login != string(q.login) || r.QueueID != string(q.queueID) || r.Sender != string(q.sender) ||
			r.State != string(q.state) || r.Instance != string(q.instance) || r.ClientName != string(q.clientName) {
			t.Errorf("copied wrongly: %+v", r)
		}
		if len(r.Recipients) != 2 || r.Recipients[0] != "r1@ok.test" || r.Recipients[1] != "r2@ok.test" {
			t.Errorf("recipients %q", r.Recipients)
		}
		if r.Size < 0 || r.RecipientCount < 0 {
			t.Errorf("negative counts: %+v", r)
		}
		for _, value := range [][]byte{q.login, q.recipient, q.sender, q.state, q.instance} {
			if bytes.IndexByte(value, '\n') >= 0 {
				t.Errorf("a value spans lines: %q", value)
			}
		}
		if len(q.login) > 0 && !strings.Contains("\n"+text+"\n", "\nsasl_username="+string(q.login)+"\n") {
			t.Errorf("login %q is nobody's in %q", q.login, text)
		}
	})
}
