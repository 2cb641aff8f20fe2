// Command milter serves a milter that blocks one account, for a test to kill
// and to stop: milter ADDRESS ACCOUNT.
package main

import (
	"context"
	"log"
	"os"

	"github.com/vedetta-watch/vedetta/internal/gate"
	"github.com/vedetta-watch/vedetta/rules"
)

func main() {
	l, err := gate.Listen(os.Args[1], 0o666)
	if err != nil {
		log.Fatal(err)
	}
	table := new(gate.Table)
	table.Set(rules.Decision{Subject: os.Args[2], Action: rules.Block, Enforce: true}, "stopped")
	if err := (&gate.Milter{Table: table}).Serve(context.Background(), l); err != nil {
		log.Fatal(err)
	}
}
