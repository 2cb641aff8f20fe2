package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/vedetta-watch/vedetta/internal/app"
)

type versionCmd struct{}

func (versionCmd) Run(io std) error {
	_, err := fmt.Fprintln(io.out, app.Version())
	return err
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
