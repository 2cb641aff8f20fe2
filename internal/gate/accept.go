package gate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// acceptPause is how long a server waits when the system is out of descriptors.
const acceptPause = 50 * time.Millisecond

// accept has handle serve the connections that l accepts, at most limit at
// once, until ctx is done; then it closes them all, waits for their goroutines
// and returns nil. It closes l. It returns an error if l fails for good. A
// panic ends its connection only.
func (c *counters) accept(ctx context.Context, l net.Listener, limit int, log *slog.Logger, handle func(net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var connections sync.WaitGroup
	defer connections.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("gate: %s: %w", l.Addr(), err)
		case err != nil: // out of descriptors, or a client gone already: others may do better
			pause(ctx, acceptPause)
			continue
		}
		if c.open.Add(1) > int64(limit) {
			c.open.Add(-1)
			c.refused.Add(1)
			conn.Close() // the mail server goes on without an answer
			continue
		}
		connections.Go(func() {
			defer c.open.Add(-1)
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			defer c.recovered(log)
			handle(conn)
		})
	}
}

// recovered counts a panic and goes on.
func (c *counters) recovered(log *slog.Logger) {
	if mistake := recover(); mistake != nil {
		c.panics.Add(1)
		if log != nil {
			log.Error("gate: panic", "panic", fmt.Sprint(mistake), "stack", string(debug.Stack()))
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
