// Command cmd writes a synthetic mail log:
//
//	go run ./test/loggen/cmd -format postfix -lines 500000 -out maillog
//	go run ./test/loggen/cmd -lines 100000 -hijack 7,6h,2s,80,3 -out -
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vedetta-watch/vedetta/test/loggen"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) (err error) {
	var o loggen.Options
	flags := flag.NewFlagSet("loggen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	format := flags.String("format", "postfix", "postfix or exim")
	out := flags.String("out", "-", "`file` to write, - is standard output")
	start := flags.String("start", "", "`time` of the log's start, RFC 3339")
	flags.IntVar(&o.Lines, "lines", 100000, "lines to write")
	flags.IntVar(&o.Accounts, "accounts", 0, "accounts that send (default 200)")
	flags.IntVar(&o.Shops, "shops", 0, "how many accounts write to somebody new each time")
	flags.Float64Var(&o.Rate, "rate", 0, "messages a second (default 12 a day and account)")
	flags.Uint64Var(&o.Seed, "seed", 1, "same seed, same log")
	flags.BoolVar(&o.RFC3339, "rfc3339", false, "stamps with year and zone (postfix)")
	flags.BoolVar(&o.Dovecot, "dovecot", false, "IMAP logins too (postfix)")
	flags.Func("hijack", "`ACCOUNT,AFTER[,EVERY[,MESSAGES[,RCPTS]]]`, may be given several times", func(s string) error {
		h, err := parseHijack(s)
		o.Hijacks = append(o.Hijacks, h)
		return err
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	o.Format = loggen.Format(*format)
	if *start != "" {
		if o.Start, err = time.Parse(time.RFC3339, *start); err != nil {
			return err
		}
	}
	if *out == "-" {
		return loggen.Write(stdout, o)
	}
	f, err := os.Create(*out)
	if err != nil {
		return err
	}
	if err := loggen.Write(f, o); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func parseHijack(s string) (h loggen.Hijack, err error) {
	fields := strings.Split(s, ",")
	if len(fields) < 2 || len(fields) > 5 {
		return h, fmt.Errorf("want 2 to 5 values")
	}
	if h.Account, err = strconv.Atoi(fields[0]); err != nil {
		return h, err
	}
	if h.After, err = time.ParseDuration(fields[1]); err != nil {
		return h, err
	}
	if len(fields) > 2 {
		if h.Every, err = time.ParseDuration(fields[2]); err != nil {
			return h, err
		}
	}
	for i, n := range []*int{&h.Messages, &h.Rcpts} {
		if len(fields) > 3+i {
			if *n, err = strconv.Atoi(fields[3+i]); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}
