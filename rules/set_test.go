package rules

import "testing"

func TestShippedCases(t *testing.T) {
	for _, r := range Shipped().RunCases() {
		if r.Problem != "" {
			t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, r.Problem)
		}
	}
	if untested := Shipped().Untested(); len(untested) > 0 {
		t.Errorf("rungs that no case wants: %v", untested)
	}
}
