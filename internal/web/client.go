package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// A Client asks a running service, as the commands do.
type Client struct {
	Base  string // "http://127.0.0.1:9190"
	Token string
}

// clientTimeout bounds one question; an order may run postmap.
const clientTimeout = 60 * time.Second

// Accounts lists the accounts with the most evidence first.
func (c *Client) Accounts(ctx context.Context, limit int) ([]Account, error) {
	var rows []Account
	err := c.get(ctx, "/api/v1/accounts", url.Values{"limit": {strconv.Itoa(limit)}}, &rows)
	return rows, err
}

// Why asks for everything about one account.
func (c *Client) Why(ctx context.Context, account string) (Why, error) {
	var why Why
	err := c.get(ctx, "/api/v1/why", url.Values{"account": {account}}, &why)
	return why, err
}

// Queue asks for the mail queue.
func (c *Client) Queue(ctx context.Context) (Queue, error) {
	var q Queue
	err := c.get(ctx, "/api/v1/queue", nil, &q)
	return q, err
}

// Act gives an order.
func (c *Client) Act(ctx context.Context, order Order) (result Result, err error) {
	err = c.post(ctx, "/api/v1/act", order, &result)
	return result, err
}

// Health asks whether the service is well. A service that is not still
// answers: the error is only about asking.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.get(ctx, "/healthz", nil, &h)
	return h, err
}

func (c *Client) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.do(ctx, http.MethodGet, path, nil, into)
}

func (c *Client) post(ctx context.Context, path string, order, into any) error {
	body, err := json.Marshal(order)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, path, bytes.NewReader(body), into)
}

func (c *Client) do(ctx context.Context, method, path string, body io.Reader, into any) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.Base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.Token)
	resp, err := http.DefaultClient.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("vedetta serve at %s has not answered within %s: what was asked may still be done; vedetta health says what is wrong", c.Base, clientTimeout)
	}
	if err != nil {
		return fmt.Errorf("cannot ask vedetta serve at %s; is it running with this configuration? %w", c.Base, errors.Unwrap(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("vedetta serve at %s: %w", c.Base, err)
	}
	if resp.StatusCode != http.StatusOK && path != "/healthz" {
		var f failure
		if json.Unmarshal(text, &f) != nil || f.Error == "" {
			f.Error = resp.Status
		}
		return errors.New(f.Error)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("vedetta serve at %s: answer is not understood: %w", c.Base, err)
	}
	return nil
}

// Journal asks for the newest lines of the journal about a subject, newest
// first; an empty subject is every subject.
func (c *Client) Journal(ctx context.Context, subject string, limit int) ([]Entry, error) {
	var rows []Entry
	err := c.get(ctx, "/api/v1/journal", url.Values{"subject": {subject}, "limit": {strconv.Itoa(limit)}}, &rows)
	return rows, err
}
