package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A bareServer is a process that answers every question alike.
type bareServer struct {
	addr string
	cmd  *exec.Cmd
}

// startBare starts this program again as a bare server of a kind.
func startBare(ctx context.Context, k kind) (*bareServer, error) {
	return startChild(ctx, "bare", k.name)
}

func (s *bareServer) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
}

// serveBare says where it listens, on the kind of socket that the gate is
// measured at, and lets everything pass.
func serveBare(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("bare: want the kind of gate")
	}
	k, err := findKind(args[0])
	if err != nil {
		return err
	}
	network, addr := "tcp", "127.0.0.1:0"
	if _, _, err := net.SplitHostPort(k.listen); err != nil {
		dir, err := os.MkdirTemp("", "vedetta-bare-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		network, addr = "unix", filepath.Join(dir, k.listen)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	fmt.Fprintln(out, l.Addr())
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			k.answer(conn)
		}()
	}
}

func answerPolicy(conn net.Conn) {
	lines := bufio.NewReader(conn)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil {
			return
		}
		if len(line) > 1 {
			continue
		}
		if _, err := io.WriteString(conn, "action=DUNNO\n\n"); err != nil {
			return
		}
	}
}

const maxPacket = 64 << 10

// readPacket reads a packet; the data are good until the next.
func readPacket(in *bufio.Reader) (letter byte, data []byte, err error) {
	head, err := in.Peek(5)
	if err != nil {
		return 0, nil, err
	}
	length, letter := int(binary.BigEndian.Uint32(head)), head[4]
	if length < 1 || length > maxPacket {
		return 0, nil, fmt.Errorf("a packet of %d bytes", length)
	}
	if _, err := in.Discard(5); err != nil || length == 1 {
		return letter, nil, err
	}
	data = make([]byte, length-1)
	_, err = io.ReadFull(in, data)
	return letter, data, err
}

// answerMilter agrees on the steps that the client does, and answers those
// that want an answer.
func answerMilter(conn net.Conn) {
	in := bufio.NewReader(conn)
	for {
		letter, _, err := readPacket(in)
		if err != nil {
			return
		}
		var answer []byte
		switch letter {
		case 'O':
			answer = appendPacket(nil, 'O', offer(6, uint32(milterMay), uint32(milterSteps)))
		case 'R':
			answer = appendPacket(nil, 'c', "")
		case 'E':
			answer = appendPacket(nil, 'a', "")
		default:
			continue
		}
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

func answerExim(conn net.Conn) {
	if _, err := bufio.NewReader(conn).ReadSlice('\n'); err == nil {
		_, _ = io.WriteString(conn, "OK") // who is gone needs no answer
	}
}
