package app

import (
	"fmt"
	"os"
	"strings"

	"github.com/vedetta-watch/vedetta/internal/config"
	"github.com/vedetta-watch/vedetta/internal/web"
	"github.com/vedetta-watch/vedetta/mailq"
	"github.com/vedetta-watch/vedetta/rules"
)

// What the commands ask a running service with, and for.
type (
	Client     = web.Client
	Order      = web.Order
	AgentOrder = web.AgentOrder
	TokenOrder = web.TokenOrder
	KeyOrder   = web.KeyOrder
	Rotation   = web.Rotation
	ListQuery  = web.ListQuery
	Complaint  = web.Complaint

	ListRemovals = web.ListRemovals

	QueueSample = mailq.QueueSample
	QueueShare  = mailq.Share
)

// NewClient finds the running service by the configuration that it runs with.
func NewClient(c config.Config) (*Client, error) {
	if c.API.Listen == "" {
		return nil, fmt.Errorf("the configuration switches the API off (api.listen), so a running service cannot be asked")
	}
	token := string(c.API.Token)
	if token == "" {
		text, err := os.ReadFile(c.TokenPath())
		if err != nil {
			return nil, fmt.Errorf("API token: %w; has vedetta serve run with this configuration, and may this user read it?", err)
		}
		token = strings.TrimSpace(string(text))
	}
	return &Client{Base: "http://" + c.API.Listen, Token: token}, nil
}

// A RulesTest is how the cases of an operator's rule files went, together
// with those of the shipped rules that stay in force.
type RulesTest struct {
	Results  []rules.CaseResult
	Untested []string // rungs that no case wants
}

// TestRules runs the cases of the rule files in dir.
func TestRules(dir string) (RulesTest, error) {
	own, err := rules.LoadDir(dir)
	if err != nil {
		return RulesTest{}, err
	}
	if len(own.RunCases()) == 0 {
		return RulesTest{}, fmt.Errorf("%s: no cases: a rule without a case is untested", dir)
	}
	set := rules.Shipped().Merge(own)
	return RulesTest{Results: set.RunCases(), Untested: set.Untested()}, nil
}
