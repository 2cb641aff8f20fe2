package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReport(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want string
		ok   bool
	}{
		{
			name: "passed and skipped",
			in: `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"output","Package":"p","Test":"TestB","Output":"=== RUN   TestB\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: only root can: 12\n"}
{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestB","Elapsed":0}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"pass","Package":"p","Elapsed":0.25}
{"Action":"skip","Package":"q","Elapsed":0}
`,
			want: "ok    p                                                               0.2s\n" +
				"\nleft out, 1 tests:\n  p TestB: only root can: 12\n" +
				"\n1 tests passed, 0 failed, 1 left out\n",
			ok: true,
		},
		{
			name: "failed",
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0}
{"Action":"fail","Package":"p","Elapsed":1}
`,
			want: "p:     a_test.go:3: got 1, want 2\nFAIL  p\n\n0 tests passed, 2 failed, 0 left out\n",
		},
		{
			name: "does not build",
			in: `{"ImportPath":"p","Action":"build-output","Output":"p.go:1: undefined: x\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p"}
`,
			want: "p.go:1: undefined: x\nFAIL\tp [build failed]\nFAIL  p\n\n0 tests passed, 1 failed, 0 left out\n",
		},
		{
			name: "dies in a test",
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"panic: oh\n"}
{"Action":"fail","Package":"p","Elapsed":0}
`,
			want: "FAIL  p\np TestA, unfinished:\npanic: oh\n\n0 tests passed, 1 failed, 0 left out\n",
		},
		{
			name: "nothing to read is no success",
			in:   "go: no such tool\n",
			want: "go: no such tool\n\n0 tests passed, 0 failed, 0 left out\n",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			ok, err := report(strings.NewReader(tt.in), &out)
			if err != nil {
				t.Fatal(err)
			}
			if ok != tt.ok {
				t.Errorf("ok is %t", ok)
			}
			if diff := cmp.Diff(out.String(), tt.want); diff != "" {
				t.Error(diff)
			}
		})
	}
}
