package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// answerTimeout bounds how long an answer may take.
const answerTimeout = 5 * time.Second

const maxAnswer = 64 << 10

// ask questions the service over all connections for the duration, at rate
// questions a second, or with 0 as fast as answers come. One thread does it
// all, with plain system calls and no collection of garbage: what is measured
// is the server, on processors that it shares with the client.
func (o gateOptions) ask(ctx context.Context, rate float64) (r outcome, err error) {
	a, err := newAsker(o)
	if err != nil {
		return r, err
	}
	defer a.close()
	if rate > 0 {
		a.every = time.Duration(float64(o.workers) / rate * float64(time.Second))
	}
	defer lean()()
	start := time.Now()
	err = a.work(ctx, start, start.Add(o.duration))
	a.outcome.took = time.Since(start)
	return a.outcome, err
}

// lean has what follows run on one thread, whose waits end in time, without a
// collection. It returns what ends that.
func lean() (end func()) {
	runtime.GC()
	percent := debug.SetGCPercent(-1)
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // else a wait is 50 µs late, and only the pace suffers
	return func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // as it was
		runtime.UnlockOSThread()
		debug.SetGCPercent(percent)
	}
}

// An asker asks over several connections, one question at a time on each.
type asker struct {
	options gateOptions
	every   time.Duration // between the questions of a connection; 0 asks at once
	rng     *rand.Rand
	conns   []conn
	outcome outcome

	// Of the connections that wait for an answer.
	waiting []*conn
	polled  []unix.PollFd
}

func newAsker(o gateOptions) (*asker, error) {
	to, err := sockaddr(o.addr)
	if err != nil {
		return nil, err
	}
	a := &asker{options: o, rng: rand.New(rand.NewPCG(1, 2)), conns: make([]conn, o.workers)}
	a.outcome = outcome{actions: map[string]int{}, answers: make([]answer, 0, int(o.duration.Seconds()*100_000))}
	for i := range a.conns {
		c := &a.conns[i]
		*c = conn{client: o.kind.client(), to: to, each: o.kind.each, fd: -1, in: make([]byte, maxAnswer)}
		if err := a.begin(c); err != nil {
			a.close()
			return nil, err
		}
	}
	return a, nil
}

// begin connects c, gets over the greeting, and prepares the first question.
func (a *asker) begin(c *conn) error {
	err := c.connect()
	if err == nil && a.options.kind.greets {
		a.prepare(c)
		c.n = 0
		err = c.exchange()
	}
	a.prepare(c)
	return err
}

// prepare writes c's next question, without sending it.
func (a *asker) prepare(c *conn) {
	c.out = c.client.ask(c.out[:0], newQuestion(a.rng, c.n, a.options.accounts))
	c.n++
}

func (a *asker) close() {
	for i := range a.conns {
		a.conns[i].hangUp()
	}
}

// work asks from start to end, and waits for the answers to what it asked.
func (a *asker) work(ctx context.Context, start, end time.Time) error {
	for i := range a.conns {
		a.conns[i].due = start.Add(a.every * time.Duration(i) / time.Duration(len(a.conns)))
	}
	for {
		wait, err := a.send(time.Now(), end)
		if err != nil || wait == 0 {
			return err
		}
		if err := poll(a.polled, wait); err != nil {
			return err
		}
		for i, c := range a.waiting {
			if a.polled[i].Revents == 0 {
				continue
			}
			if err := a.receive(c); err != nil {
				return fmt.Errorf("gate: answer %d: %w", c.n, err)
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// send sends what is due before end, notes who waits for an answer, and returns
// how long nothing else is to be done: not at all once all is over.
func (a *asker) send(now, end time.Time) (wait time.Duration, err error) {
	wait = answerTimeout
	a.waiting, a.polled = a.waiting[:0], a.polled[:0]
	for i := range a.conns {
		c := &a.conns[i]
		switch early := c.due.Sub(now); {
		case c.waits && now.Sub(c.sent) > answerTimeout:
			return 0, fmt.Errorf("gate: answer %d: none in %v", c.n, answerTimeout)
		case c.waits:
		case !now.Before(end):
			continue
		case early > 0:
			wait = min(wait, early)
			continue
		default:
			if err := c.send(); err != nil {
				return 0, fmt.Errorf("gate: question %d: %w", c.n, err)
			}
		}
		a.waiting = append(a.waiting, c)
		a.polled = append(a.polled, unix.PollFd{Fd: int32(c.fd), Events: unix.POLLIN})
	}
	if !now.Before(end) && len(a.waiting) == 0 {
		return 0, nil
	}
	return wait, nil
}

// receive reads what came for c. If that makes an answer, it is noted, and the
// next question is prepared before it is due.
func (a *asker) receive(c *conn) error {
	action, err := c.receive()
	if action == "" || err != nil {
		return err
	}
	now := time.Now()
	a.outcome.answers = append(a.outcome.answers, answer{c.due, c.sent, now, c.late})
	a.outcome.actions[action]++
	c.due = c.due.Add(a.every)
	c.late = a.every > 0 && now.After(c.due)
	if a.every == 0 {
		c.due = now
	}
	a.prepare(c)
	return nil
}

// A conn asks one question after the other: over one connection, or over a new
// one each.
type conn struct {
	client client
	to     unix.Sockaddr
	each   bool

	fd    int // -1: not connected
	out   []byte
	in    []byte
	held  int // of in
	n     int // questions prepared
	waits bool

	due, sent time.Time // of the latest question
	late      bool
}

// sockaddr is where addr is: a path, or a host and a port.
func sockaddr(addr string) (unix.Sockaddr, error) {
	if network(addr) == "unix" {
		return &unix.SockaddrUnix{Name: addr}, nil
	}
	at, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet4{Addr: at.AddrPort().Addr().As4(), Port: at.Port}, nil
}

func (c *conn) connect() error {
	family := unix.AF_INET
	if _, ok := c.to.(*unix.SockaddrUnix); ok {
		family = unix.AF_UNIX
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	c.fd = fd
	if family == unix.AF_INET {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
	}
	if err = unix.Connect(fd, c.to); err != unix.EINPROGRESS {
		return err
	}
	if err := poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, answerTimeout); err != nil {
		return err
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if code != 0 {
		return unix.Errno(code)
	}
	return err
}

func (c *conn) hangUp() {
	if c.fd >= 0 {
		unix.Close(c.fd)
		c.fd = -1
	}
}

// send sends the question that is prepared. Exim has no more to say on its
// connection.
func (c *conn) send() error {
	c.sent, c.waits = time.Now(), true
	if c.fd < 0 {
		if err := c.connect(); err != nil {
			return err
		}
	}
	switch n, err := unix.Write(c.fd, c.out); {
	case err != nil:
		return err
	case n < len(c.out):
		return io.ErrShortWrite
	}
	if c.each {
		return unix.Shutdown(c.fd, unix.SHUT_WR)
	}
	return nil
}

// receive reads what is there, and returns the answer's first word when that is
// whole.
func (c *conn) receive() (action string, err error) {
	n, err := unix.Read(c.fd, c.in[c.held:])
	switch {
	case err == unix.EAGAIN:
		return "", nil
	case err != nil:
		return "", err
	}
	c.held += n
	action, err = c.client.answered(c.in[:c.held], n == 0)
	switch {
	case err != nil:
		return "", err
	case action != "":
		c.held, c.waits = 0, false
		if c.each {
			c.hangUp()
		}
	case n == 0, c.held == len(c.in):
		return "", fmt.Errorf("%d bytes and no end: %q", c.held, c.in[:min(c.held, 100)])
	}
	return action, nil
}

// exchange asks what is prepared and waits for the answer.
func (c *conn) exchange() error {
	if err := c.send(); err != nil {
		return err
	}
	for c.waits && time.Since(c.sent) < answerTimeout {
		if err := poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, answerTimeout); err != nil {
			return err
		}
		if _, err := c.receive(); err != nil {
			return err
		}
	}
	if c.waits {
		return fmt.Errorf("no answer in %v", answerTimeout)
	}
	return nil
}

// poll waits until something happened to one of the sockets, or the time is
// over. Go's scheduler is not told of the wait: nothing else is to run here, and
// its monitor would be woken at each.
func poll(sockets []unix.PollFd, wait time.Duration) error {
	timeout := unix.NsecToTimespec(int64(wait))
	_, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(unsafe.SliceData(sockets))), uintptr(len(sockets)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	if errno != 0 && errno != unix.EINTR {
		return errno
	}
	return nil
}
