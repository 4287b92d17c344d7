package lint

import (
	"go/ast"
	"go/parser"
	"testing"
)

// TestMatches: rules that match nothing hold nothing.
func TestMatches(t *testing.T) {
	tests := []struct {
		pattern, path string
		want          bool
	}{
		{"internal/...", "internal/train", true},
		{"internal/...", "internal", true},
		{"internal/...", "internals/train", false},
		{"workers", "workers", true},
		{"workers", "workers/cpu", false},
		{"...", "anything/at/all", true},
		{"C", "C", true},
		{"go.temporal.io/...", "go.temporal.io/sdk/client", true},
	}
	for _, tt := range tests {
		if got := matches([]string{tt.pattern}, tt.path); got != tt.want {
			t.Errorf("matches(%q, %q) = %t, want %t", tt.pattern, tt.path, got, tt.want)
		}
	}
}

// TestEnds looks at what counts as ending the process.
func TestEnds(t *testing.T) {
	for call, want := range map[string]bool{
		`panic("x")`: true, `os.Exit(1)`: true, `log.Fatalf("x")`: true, `x.MustAdd(y)`: true, `ts.MustZeros()`: true,
		`f().MustDrop()`: true, `regexp.MustCompile("x")`: true, `x.Mustard()`: false, `recover()`: false, `x.Add(y)`: false,
	} {
		expr, err := parser.ParseExpr(call)
		if err != nil {
			t.Fatal(err)
		}
		if got := ends(callee(expr.(*ast.CallExpr))); got != want {
			t.Errorf("ends(%s) = %t, want %t", call, got, want)
		}
	}
}

// TestMachinePath looks at what counts as a path of one machine.
func TestMachinePath(t *testing.T) {
	for text, want := range map[string]bool{
		"see /root/.cache/x": true, "--find-links /opt/wheels/x": true, "dir=/work/main": true,
		"a/work/b": false, "https://host/root/x": false, "/homework/x": false, "/tmp/x": false, "/work/ is": false,
	} {
		if got := machinePath.MatchString(text); got != want {
			t.Errorf("%q: got %t, want %t", text, got, want)
		}
	}
}
