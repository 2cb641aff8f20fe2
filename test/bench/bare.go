package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// A bareServer is a process that answers every question alike.
type bareServer struct {
	addr string
	cmd  *exec.Cmd
}

// startBare starts this program again as a bare server.
func startBare(ctx context.Context) (*bareServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "bare")
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(said).ReadString('\n')
	s := &bareServer{addr: string(bytes.TrimSpace([]byte(addr))), cmd: cmd}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("bare server: %w", err)
	}
	return s, nil
}

func (s *bareServer) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	s.cmd.Wait()
}

// serveBare says where it listens and answers DUNNO to everything.
func serveBare(ctx context.Context, out io.Writer) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
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
		go answerBare(conn)
	}
}

func answerBare(conn net.Conn) {
	defer conn.Close()
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
