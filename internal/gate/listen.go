package gate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Listen listens on an address as Postfix writes it: inet:HOST:PORT or
// unix:/PATH. A unix socket gets the given mode, which Postfix needs to be
// 0666, or 0660 with the socket in a directory of its group. A socket that a
// process left behind is removed; one that still answers, or a file that is no
// socket, is an error.
func Listen(addr string, mode fs.FileMode) (net.Listener, error) {
	network, address, err := split(addr)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	if network == "unix" {
		if err := os.Chmod(address, mode); err != nil {
			l.Close()
			return nil, fmt.Errorf("gate: %w", err)
		}
	}
	return l, nil
}

// split takes an address apart for package net.
func split(addr string) (network, address string, err error) {
	kind, address, _ := strings.Cut(addr, ":")
	switch kind {
	case "inet":
		if _, _, err := net.SplitHostPort(address); err != nil {
			return "", "", fmt.Errorf("gate: address %q: %w", addr, err)
		}
		return "tcp", address, nil
	case "unix":
		if !filepath.IsAbs(address) {
			return "", "", fmt.Errorf("gate: address %q: the path of a socket must be absolute", addr)
		}
		return "unix", address, nil
	}
	return "", "", fmt.Errorf("gate: address %q: want inet:HOST:PORT or unix:/PATH", addr)
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("gate: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("gate: %s: exists and is no socket", path)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return fmt.Errorf("gate: %s: another process is listening", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	return nil
}

// Ask puts one question to a policy service at an address as [Listen] takes
// it, as Postfix would, and returns its action: "DUNNO", "REJECT 5.7.1 …".
// Attributes are "name=value". It ends with ctx.
func Ask(ctx context.Context, addr string, attributes ...string) (string, error) {
	network, address, err := split(addr)
	if err != nil {
		return "", err
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return "", fmt.Errorf("gate: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	question := "request=smtpd_access_policy\n" + strings.Join(attributes, "\n") + "\n\n"
	if _, err := io.WriteString(conn, question); err != nil {
		return "", fmt.Errorf("gate: %s: %w", addr, err)
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, maxRequest)).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("gate: %s: %w", addr, err)
	}
	action, ok := strings.CutPrefix(strings.TrimSuffix(answer, "\n"), "action=")
	if !ok {
		return "", fmt.Errorf("gate: %s: answered %q", addr, answer)
	}
	return action, nil
}
