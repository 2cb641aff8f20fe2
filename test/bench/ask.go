package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/d--j/go-milter"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

// A kind is a way in which a mail server asks the gate.
type kind struct {
	name   string
	key    string // of the gate's section in the configuration
	listen string // where the service that is started does; in its directory if no host:port
	dial   func(network, addr string) (client, error)
	answer func(net.Conn) // the bare server's answers, until the connection ends
}

var kinds = []kind{
	{"policy", "listen", "127.0.0.1:29998", dialPolicy, answerPolicy},
	{"milter", "milter", "127.0.0.1:29999", dialMilter, answerMilter},
	{"exim", "exim", "exim.sock", dialExim, answerExim},
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

// A client asks one question after the other.
type client interface {
	prepare(q question)   // writes the next question, without sending it
	ask() (string, error) // sends it, and returns the answer's first word
	Close() error
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

// answerTimeout bounds how long an answer may take.
const answerTimeout = 5 * time.Second

// A policyClient asks what Postfix asks at RCPT, on one connection.
type policyClient struct {
	net.Conn
	lines *bufio.Reader
	out   []byte
}

func dialPolicy(network, addr string) (client, error) {
	conn, err := dialer.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return &policyClient{Conn: conn, lines: bufio.NewReader(conn)}, nil
}

func (c *policyClient) prepare(q question) {
	c.out = fmt.Appendf(c.out[:0], "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=%s\n"+
		"client_name=unknown\nclient_port=%d\nreverse_client_name=unknown\nserver_address=127.0.0.1\nserver_port=587\nhelo_name=vm\n"+
		"sender=%s\nrecipient=%s\nrecipient_count=0\nqueue_id=\ninstance=%x.%x.0\nsize=2000\netrn_domain=\nstress=\n"+
		"sasl_method=PLAIN\nsasl_username=%s\nsasl_sender=\n\n",
		q.client(), q.port(), q.login, q.to(), q.random, q.n, q.login)
}

func (c *policyClient) ask() (string, error) {
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return "", err
	}
	if _, err := c.Write(c.out); err != nil {
		return "", err
	}
	return readAction(c.lines)
}

// readAction reads an answer: action=WORD and the rest, and an empty line.
func readAction(lines *bufio.Reader) (string, error) {
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	word, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("action="))
	if !ok {
		return "", fmt.Errorf("want action=, got %q", line)
	}
	word, _, _ = bytes.Cut(word, []byte(" "))
	action := string(word)
	if line, err = lines.ReadSlice('\n'); err != nil {
		return "", err
	}
	if len(bytes.TrimSpace(line)) > 0 {
		return "", fmt.Errorf("want an empty line, got %q", line)
	}
	return action, nil
}

// What a milterClient leaves out and sends without being answered: the same as
// Postfix does when Vedetta asks it to.
const (
	milterSteps = milter.OptNoConnect | milter.OptNoHelo | milter.OptNoMailReply | milter.OptNoData | milter.OptNoUnknown |
		milter.OptNoHeaderReply | milter.OptNoEOH | milter.OptNoBody
	milterMay = milter.OptQuarantine | milter.OptSetMacros
)

// A milterClient asks about one message after the other on one connection, as
// Postfix does in an SMTP session: with the sender and a recipient, and the
// next time with the headers and the end. A refused recipient ends a message.
type milterClient struct {
	net.Conn
	in   *bufio.Reader
	out  []byte
	body bool // the next question is about the headers and the end
}

func dialMilter(network, addr string) (client, error) {
	conn, err := dialer.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	c := &milterClient{Conn: conn, in: bufio.NewReader(conn)}
	if err := c.negotiate(); err != nil {
		return nil, errors.Join(fmt.Errorf("negotiating: %w", err), conn.Close())
	}
	return c, nil
}

// negotiate offers what Postfix 3.7 does.
func (c *milterClient) negotiate() error {
	c.out = appendPacket(c.out[:0], 'O', offer(6, 0x1ff, 0x1fffff))
	if err := c.send(); err != nil {
		return err
	}
	letter, data, err := readPacket(c.in)
	switch {
	case err != nil:
		return err
	case letter != 'O' || len(data) < 12:
		return fmt.Errorf("answer %q %q", letter, data)
	}
	if steps := milter.OptProtocol(binary.BigEndian.Uint32(data[8:])); steps != milterSteps {
		return fmt.Errorf("the milter wants %v, this client does %v", steps, milterSteps)
	}
	return nil
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

const maxAnswer = 64 << 10

// readPacket reads one; the data are good until the next.
func readPacket(in *bufio.Reader) (letter byte, data []byte, err error) {
	head, err := in.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	length, letter := int(binary.BigEndian.Uint32(head)), head[4]
	if length < 1 || length > maxAnswer {
		return 0, nil, fmt.Errorf("a packet of %d bytes", length)
	}
	if _, err := in.Discard(5); err != nil || length == 1 {
		return letter, nil, err
	}
	data = make([]byte, length-1)
	_, err = io.ReadFull(in, data)
	return letter, data, err
}

func (c *milterClient) send() error {
	if err := c.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	_, err := c.Write(c.out)
	return err
}

func (c *milterClient) prepare(q question) {
	c.out = c.out[:0]
	add := func(letter byte, texts ...string) {
		c.out = appendPacket(c.out, letter, strings.Join(texts, "\x00")+"\x00")
	}
	if c.body {
		for _, header := range [][2]string{
			{"Received", "from vm (unknown [198.18.0.1])\n\tby mx1.hosting.test (Postfix) with ESMTPSA id 4jXK971kgrz1SRpG\n\tfor <r@company.test>"},
			{"From", q.login}, {"To", q.to()}, {"Subject", "Your order"}, {"Date", "Mon, 02 Mar 2026 08:00:00 +0000"},
			{"Message-Id", "<20260302080000.1@vm>"}, {"Content-Type", "text/plain; charset=utf-8"},
		} {
			add('L', header[0], header[1])
		}
		add('D', "Ei", "4jXK971kgrz1SRpG")
		c.out = appendPacket(c.out, 'E', "")
		return
	}
	add('D', "M{auth_authen}", q.login, "{client_addr}", q.client(), "{client_name}", "unknown", "{client_port}", fmt.Sprint(q.port()))
	add('M', "<"+q.login+">", "BODY=8BITMIME")
	add('R', "<"+q.to()+">")
}

// The letters of answers.
var milterWords = map[byte]string{'c': "continue", 'a': "accept", 'y': "reply", 'r': "reject", 't': "tempfail", 'q': "quarantine"}

func (c *milterClient) ask() (string, error) {
	if err := c.send(); err != nil {
		return "", err
	}
	letter, _, err := readPacket(c.in)
	if err != nil {
		return "", err
	}
	word, ok := milterWords[letter]
	if !ok || letter == 'q' { // no account is held
		return "", fmt.Errorf("answer %q", letter)
	}
	c.body = letter == 'c'
	return word, nil
}

// An eximClient makes a connection for each question, as docs/exim.md has Exim
// do at RCPT and after the data.
type eximClient struct {
	network, addr string
	out           []byte
}

func dialExim(network, addr string) (client, error) {
	conn, err := dialer.Dial(network, addr)
	if err != nil {
		return nil, err
	}
	return &eximClient{network: network, addr: addr}, conn.Close()
}

func (c *eximClient) prepare(q question) {
	stage, id, size, rcpts, to := "rcpt", "", "-1", "0", ""
	if q.n%2 == 1 {
		stage, id, size, rcpts, to = "data", "1xV5bD-0003V5-1t", "4096", "1", q.to()
	}
	c.out = fmt.Appendf(c.out[:0], "stage=%s\tid=%s\tip=%s\tauth=%s\tlocal=\tcwd=/\tphp=\tsize=%s\trcpts=%s\tfrom=%s\tto=%s\n",
		stage, id, q.client(), q.login, size, rcpts, q.login, to)
}

func (c *eximClient) ask() (string, error) {
	conn, err := dialer.Dial(c.network, c.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return "", err
	}
	if _, err := conn.Write(c.out); err != nil {
		return "", err
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return "", err
	}
	word, _, _ := strings.Cut(string(answer), " ")
	if !slices.Contains([]string{"OK", "DENY", "DEFER", "FREEZE"}, word) {
		return "", fmt.Errorf("answer %q", answer)
	}
	return word, nil
}

// Close does nothing: no connection is kept.
func (c *eximClient) Close() error { return nil }
