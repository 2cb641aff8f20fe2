package rules

import (
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The names that messages and the manual list are those that conditions have.
func TestEnvironmentNames(t *testing.T) {
	var got []string
	for field := range reflect.TypeFor[environment]().Fields() {
		got = append(got, field.Tag.Get("expr"))
	}
	want := slices.Clone(environmentNames[:])
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("names (-got +want):\n%s", diff)
	}
}
