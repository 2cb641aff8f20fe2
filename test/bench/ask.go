package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"

	"github.com/d--j/go-milter"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

// A kind is a way in which a mail server asks the gate.
type kind struct {
	name   string
	key    string // of the gate's section in the configuration
	listen string // where the service that is started does; in its directory if no host:port
	client func() client
	answer func(net.Conn) // the bare server's answers, until the connection ends

	greets bool // the first answer on a connection is about the protocol
	each   bool // a connection is for one question
}

var kinds = []kind{
	{name: "policy", key: "listen", listen: "127.0.0.1:29998", client: func() client { return policyClient{} }, answer: answerPolicy},
	{name: "milter", key: "milter", listen: "127.0.0.1:29999", client: func() client { return new(milterClient) }, answer: answerMilter, greets: true},
	{name: "exim", key: "exim", listen: "exim.sock", client: func() client { return eximClient{} }, answer: answerExim, each: true},
}

func findKind(name string) (kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("no kind of gate %q: want policy, milter or exim", name)
}

// network is what addr is dialled with: a path is a unix socket's.
func network(addr string) string {
	if strings.HasPrefix(addr, "/") {
		return "unix"
	}
	return "tcp"
}

// A client writes what a mail server asks on one connection, and understands
// what it is answered.
type client interface {
	// ask appends the next question to out.
	ask(out []byte, q question) []byte

	// answered takes what came back so far, and whether the connection was
	// ended behind it. It returns the answer's first word, or none as long as
	// the answer is not whole.
	answered(in []byte, ended bool) (word string, err error)
}

// A question is about a message of an account.
type question struct {
	n       int // of this client's questions, from 0
	account int
	login   string
	random  uint32
}

func newQuestion(rng *rand.Rand, n, accounts int) question {
	account := rng.IntN(accounts)
	return question{n, account, loggen.Options{}.Login(account), rng.Uint32()}
}

func (q question) client() string {
	return fmt.Sprintf("198.18.%d.%d", q.account>>8&255, q.account&255)
}
func (q question) port() int  { return 1024 + q.n%60000 }
func (q question) to() string { return fmt.Sprintf("r%d@company%d.test", q.n, q.n%500) }

// A policyClient asks what Postfix asks at RCPT.
type policyClient struct{}

func (policyClient) ask(out []byte, q question) []byte {
	return fmt.Appendf(out, "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=%s\n"+
		"client_name=unknown\nclient_port=%d\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=587\nhelo_name=vm\n"+
		"sender=%s\nrecipient=%s\nrecipient_count=0\nqueue_id=\ninstance=%x.%x.0\nsize=2000\netrn_domain=\nstress=\n"+
		"sasl_method=PLAIN\nsasl_username=%s\nsasl_sender=\n\n",
		q.client(), q.port(), q.login, q.to(), q.random, q.n, q.login)
}

// answered reads action=WORD and the rest of a line, and an empty line.
func (policyClient) answered(in []byte, _ bool) (string, error) {
	action, rest, whole := bytes.Cut(in, []byte("\n"))
	empty, _, ended := bytes.Cut(rest, []byte("\n"))
	word, ok := bytes.CutPrefix(bytes.TrimSpace(action), []byte("action="))
	switch {
	case whole && !ok, ended && len(bytes.TrimSpace(empty)) > 0:
		return "", fmt.Errorf("answer %q", in)
	case !ended:
		return "", nil
	}
	word, _, _ = bytes.Cut(word, []byte(" "))
	return string(word), nil
}

// What a milterClient leaves out and sends without being answered: the same as
// Postfix does when Vedetta asks it to.
const (
	milterSteps = milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailReply | milter.OptNoData | milter.OptNoUnknown |
		milter.OptNoHeaderReply | milter.OptNoEOH | milter.OptNoBody
	milterMay = milter.OptQuarantine | milter.OptSetMacros
)

// A milterClient asks about one message after the other on one connection, as
// Postfix does in an SMTP session: once what the milter wants; then with the
// sender and a recipient, and the next time with the headers and the end. A
// refused recipient ends a message.
type milterClient struct {
	agreed bool // on the steps
	body   bool // the next question is about the headers and the end
}

func offer(version, actions, protocol uint32) string {
	var b []byte
	for _, n := range []uint32{version, actions, protocol} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return string(b)
}

// appendPacket appends a packet: its length, a letter, and data.
func appendPacket(b []byte, letter byte, data string) []byte {
	return append(append(binary.BigEndian.AppendUint32(b, uint32(len(data)+1)), letter), data...)
}

// cutPacket takes a packet off the front of in, or nothing if it is not whole.
func cutPacket(in []byte) (letter byte, data []byte, ok bool) {
	if len(in) < 5 {
		return 0, nil, false
	}
	end := 4 + uint64(binary.BigEndian.Uint32(in))
	if end < 5 || end > uint64(len(in)) {
		return 0, nil, false
	}
	return in[4], in[5:end], true
}

func (c *milterClient) ask(out []byte, q question) []byte {
	add := func(letter byte, texts ...string) {
		out = appendPacket(out, letter, strings.Join(texts, "\x00")+"\x00")
	}
	switch {
	case !c.agreed:
		return appendPacket(out, 'O', offer(6, 0x1ff, 0x1fffff)) // what Postfix 3.7 offers
	case c.body:
		for _, header := range [][2]string{
			{"Received", "from vm (unknown [198.18.0.1])\n\tby mx1.hosting.test (Postfix) with ESMTPSA id 4jXK971kgrz1SRpG\n\tfor <r@company.test>"},
			{"From", q.login}, {"To", q.to()}, {"Subject", "Your order"}, {"Date", "Mon, 02 Mar 2026 08:00:00 +0000"},
			{"Message-Id", "<20260302080000.1@vm>"}, {"Content-Type", "text/plain; charset=utf-8"},
		} {
			add('L', header[0], header[1])
		}
		add('D', "Ei", "4jXK971kgrz1SRpG")
		return appendPacket(out, 'E', "")
	}
	add('D', "M{auth_authen}", q.login, "{client_addr}", q.client(), "{client_name}", "unknown", "{client_port}", fmt.Sprint(q.port()))
	add('M', "<"+q.login+">", "BODY=8BITMIME")
	add('R', "<"+q.to()+">")
	return out
}

// The letters of answers.
var milterWords = map[byte]string{'c': "continue", 'a': "accept", 'y': "reply", 'r': "reject", 't': "tempfail"}

func (c *milterClient) answered(in []byte, _ bool) (string, error) {
	letter, data, ok := cutPacket(in)
	switch {
	case !ok:
		return "", nil
	case !c.agreed:
		c.agreed = true
		return "agreed", agree(letter, data)
	}
	word, ok := milterWords[letter] // and no account is held
	if !ok {
		return "", fmt.Errorf("answer %q", letter)
	}
	c.body = letter == 'c'
	return word, nil
}

// agree reads which steps the milter wants.
func agree(letter byte, data []byte) error {
	if letter != 'O' || len(data) < 12 {
		return fmt.Errorf("answer %q %q to the offer", letter, data)
	}
	if steps := milter.OptProtocol(binary.BigEndian.Uint32(data[8:])); steps != milterSteps {
		return fmt.Errorf("the milter wants %v, this client does %v", steps, milterSteps)
	}
	return nil
}

// An eximClient asks as docs/exim.md has Exim do at RCPT and after the data, on
// a connection for each question.
type eximClient struct{}

func (eximClient) ask(out []byte, q question) []byte {
	stage, id, size, rcpts, to := "rcpt", "", "-1", "0", ""
	if q.n%2 == 1 {
		stage, id, size, rcpts, to = "data", "1xV5bD-0003V5-1t", "4096", "1", q.to()
	}
	return fmt.Appendf(out, "stage=%s\tid=%s\tip=%s\tauth=%s\tlocal=\tcwd=/\tphp=\tsize=%s\trcpts=%s\tfrom=%s\tto=%s\n",
		stage, id, q.client(), q.login, size, rcpts, q.login, to)
}

// answered reads up to the end of the connection.
func (eximClient) answered(in []byte, ended bool) (string, error) {
	if !ended {
		return "", nil
	}
	word, _, _ := strings.Cut(string(in), " ")
	if !slices.Contains([]string{"OK", "DENY", "DEFER", "FREEZE"}, word) {
		return "", fmt.Errorf("answer %q", in)
	}
	return word, nil
}
