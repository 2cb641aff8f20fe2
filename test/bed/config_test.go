package bed

import "testing"

// Who has a parameter twice has Postfix wait for itself now and then, when it starts.
func TestOverrule(t *testing.T) {
	got := overrule("a = 1\nb = 2,\n  3\nc = 4\n", []string{"b = 5", "d=6"})
	if want := "a = 1\nc = 4\nb = 5\nd=6\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
