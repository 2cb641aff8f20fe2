package main

import (
	"fmt"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type rulesCmd struct {
	Test rulesTestCmd `cmd:"" help:"Run the cases that rule files carry."`
}

type rulesTestCmd struct {
	Dir  string `arg:"" help:"Directory of *.yml rule files." type:"existingdir"`
	JSON bool   `help:"Print JSON."`
}

func (cmd *rulesTestCmd) Run(io std) error {
	test, err := app.TestRules(cmd.Dir)
	if err != nil {
		return err
	}
	if cmd.JSON {
		if err := printJSON(io.out, test.Results); err != nil {
			return err
		}
	}
	failed := 0
	for _, r := range test.Results {
		if r.Problem == "" {
			continue
		}
		failed++
		if !cmd.JSON {
			fmt.Fprintf(io.out, "%s:%d: %s: %s\n", r.File, r.Line, clean(r.Name), clean(r.Problem))
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases failed", failed, len(test.Results))
	}
	if cmd.JSON {
		return nil
	}
	for _, rung := range test.Untested {
		fmt.Fprintf(io.out, "no case reaches %s\n", rung)
	}
	fmt.Fprintf(io.out, "%d cases passed, those of the shipped rules among them\n", len(test.Results))
	return nil
}
