package main

import (
	"context"
	"fmt"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type tokensCmd struct {
	List   tokensListCmd   `cmd:"" default:"withargs" help:"List who has a token for the API."`
	Add    tokensAddCmd    `cmd:"" help:"Make a token, which is printed once and kept nowhere."`
	Revoke tokensRevokeCmd `cmd:"" help:"Refuse a token from now on."`
}

type tokensListCmd struct {
	configFlag
	JSON bool `help:"Print JSON."`
}

func (cmd *tokensListCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	rows, err := client.Tokens(ctx)
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, rows)
	}
	w := table(io.out)
	fmt.Fprintln(w, "NAME\tROLE\tADDED\tREVOKED")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", clean(r.Name), clean(r.Role), stamp(r.Added), stamp(r.Revoked))
	}
	return w.Flush()
}

type tokensAddCmd struct {
	configFlag
	Name string `arg:"" help:"Whose it is: a person or a program."`
	Role string `required:"" enum:"viewer,operator,admin" help:"viewer looks; operator gives orders about accounts; admin says who may speak: agents and tokens."`
	JSON bool   `help:"Print JSON."`
}

func (cmd *tokensAddCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	result, err := client.ChangeToken(ctx, app.TokenOrder{Do: "add", Name: cmd.Name, Role: cmd.Role, Who: operator()})
	if err != nil {
		return err
	}
	if cmd.JSON {
		return printJSON(io.out, result)
	}
	fmt.Fprintln(io.out, result.Token)
	return nil
}

type tokensRevokeCmd struct {
	configFlag
	Name string `arg:"" help:"Whose it is."`
}

func (cmd *tokensRevokeCmd) Run(ctx context.Context, io std) error {
	client, err := cmd.client()
	if err != nil {
		return err
	}
	if _, err := client.ChangeToken(ctx, app.TokenOrder{Do: "revoke", Name: cmd.Name, Who: operator()}); err != nil {
		return err
	}
	fmt.Fprintf(io.out, "the token of %s is refused from now on\n", clean(cmd.Name))
	return nil
}
