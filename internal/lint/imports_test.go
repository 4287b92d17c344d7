package lint

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// rule forbids imports. Patterns are import paths; a trailing "/..." takes in what is below, and the module's own path is
// left out.
type rule struct {
	from   []string
	deny   []string
	allow  []string // exceptions from deny
	except []string // packages of from that may
	tests  bool     // holds for test files too
	reason string
}

var gotch = []string{"github.com/sugarme/gotch/..."}

var rules = []rule{
	{from: []string{"internal/...", "dataset/..."}, deny: []string{"go.temporal.io/..."}, tests: true,
		reason: "only activities and what is above them know Temporal"},
	{from: []string{"internal/...", "dataset/..."}, deny: []string{"activities/...", "workflows/...", "workers/..."}, tests: true,
		reason: "imports point one way: recipe, artifact, dataset, train -> activities -> workflows"},
	{from: []string{"activities/..."}, deny: []string{"workflows/...", "workers/..."},
		reason: "imports point one way: activities -> workflows"},
	{from: []string{"workflows/..."}, deny: []string{"workers/...", "dataset/...", "internal/..."},
		allow:  []string{"internal/recipe", "internal/artifact"}, // types that travel in its history
		reason: "a workflow sees recipes, refs and the activities' own types only"},
	{from: []string{"..."}, deny: gotch, except: []string{"internal/torch/..."}, tests: true,
		reason: "internal/torch is the only importer of gotch"},
	{from: []string{"..."}, deny: []string{"C"}, except: []string{"internal/torch/...", "internal/model/...", "internal/engine/..."}, tests: true,
		reason: "cgo lives in internal/{torch,model,engine} only"},
	{from: []string{"..."}, deny: []string{"internal/engine/..."}, except: []string{"internal/engine/...", "workers/gpu/...", "infra/bench/...", "infra/predict/...", "infra/replay/..."},
		reason: "imports point one way: torch -> model -> engine -> workers/gpu; infra/bench measures it, infra/predict and infra/replay use it"},
	{from: []string{"activities/...", "workflows/...", "workers/cpu/...", "workers", "dataset/..."}, deny: []string{"internal/torch/..."},
		reason: "only the GPU worker links libtorch"},
	{from: []string{"activities/...", "workflows/...", "workers/...", "dataset/...", "internal/..."}, deny: []string{"infra/..."},
		allow:  []string{"infra/libtorch"}, // where the libraries lie
		reason: "the product does not know how it was set up"},
	{from: []string{"infra/stack/...", "infra/local/...", "infra/setup/..."}, deny: []string{"activities/...", "workflows/...", "workers/...", "dataset/..."},
		reason: "the stack can be run, and stopped, while the product does not compile"},
}

// workflowStd are the packages of the standard library a workflow may use: nothing with a clock, a network, randomness,
// an environment or a goroutine of its own. time is there for durations.
var workflowStd = []string{
	"bytes", "cmp", "crypto/sha256", "encoding/hex", "encoding/json", "errors", "fmt", "maps", "math", "path", "slices", "strconv", "strings", "time",
}

// TestImports checks the rules on every file, whatever its build tags.
func TestImports(t *testing.T) {
	for _, s := range allSources(t) {
		for _, path := range s.imports() {
			own := strings.TrimPrefix(path, module+"/")
			for _, r := range rules {
				if s.test() && !r.tests || !matches(r.from, s.dir) || matches(r.except, s.dir) {
					continue
				}
				if matches(r.deny, own) && !matches(r.allow, own) {
					t.Errorf("%s imports %s: %s", s.path, path, r.reason)
				}
			}
		}
	}
}

// TestWorkflowImports: what is not on the list is not known to be deterministic.
func TestWorkflowImports(t *testing.T) {
	for _, s := range allSources(t) {
		if s.dir != "workflows" || s.test() {
			continue
		}
		for _, path := range s.imports() {
			std := !strings.Contains(strings.Split(path, "/")[0], ".")
			if std && !slices.Contains(workflowStd, path) {
				t.Errorf("%s imports %s: not on the list of what a workflow may use", s.path, path)
			}
		}
	}
}

// TestTag: without the tag, ./... builds, vets and lints on a machine that has no libtorch.
func TestTag(t *testing.T) {
	for _, s := range allSources(t) {
		for _, path := range s.imports() {
			if (path == "C" || matches(gotch, path)) && !strings.Contains(s.text, "//go:build torch") {
				t.Errorf("%s imports %s without the build tag torch", s.path, path)
			}
		}
	}
}

// matches reports whether one of the patterns matches the path.
func matches(patterns []string, path string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		base, below := strings.CutSuffix(p, "...")
		base = strings.TrimSuffix(base, "/")
		return path == base || below && (base == "" || strings.HasPrefix(path, base+"/"))
	})
}

// listed is what `go list` says of a package.
type listed struct {
	ImportPath string
	Deps       []string
}

// TestDependencies checks what the go command resolves, indirect imports included, without cgo and without the tag.
func TestDependencies(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Deps", "./...")
	cmd.Dir, cmd.Env, cmd.Stderr = rootDir, append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		own := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, dep := range p.Deps {
			switch {
			case matches(gotch, dep):
				t.Errorf("%s depends on %s without the tag torch", own, dep)
			case matches([]string{"internal/...", "dataset/..."}, own) && matches([]string{"go.temporal.io/..."}, dep):
				t.Errorf("%s depends on %s: only activities and what is above them know Temporal", own, dep)
			}
		}
	}
}

// TestBuildsWithoutCgo: the CPU worker is static, and workflows and activities are tested on any laptop.
func TestBuildsWithoutCgo(t *testing.T) {
	cmd := exec.Command("go", "build", "./workflows/...", "./activities/...", "./workers/cpu")
	cmd.Dir, cmd.Env = rootDir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
