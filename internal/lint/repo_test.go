package lint

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestTaskfile: the Taskfile is the developer's whole surface, and `task --list` its manual.
func TestTaskfile(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(rootDir, "Taskfile.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Tasks map[string]struct {
			Desc     string `yaml:"desc"`
			Internal bool   `yaml:"internal"`
		} `yaml:"tasks"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"run", "up", "down", "status", "logs", "validate", "setup", "test", "lint", "fmt", "build"} {
		if _, ok := file.Tasks[name]; !ok {
			t.Errorf("Taskfile.yml has no verb %q", name)
		}
	}
	for name, task := range file.Tasks {
		if task.Desc == "" && !task.Internal {
			t.Errorf("Taskfile.yml: %s has no desc", name)
		}
	}
}

// TestREADME: longer ones are not read.
func TestREADME(t *testing.T) {
	const maxLines = 150
	text, err := os.ReadFile(filepath.Join(rootDir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n > maxLines {
		t.Errorf("README.md has %d lines, want at most %d", n, maxLines)
	}
}

// machinePath is an absolute path into somebody's own folders.
var machinePath = regexp.MustCompile(`(^|[\s"'=:(\x60])/(root|work|workspace|home/runner|opt/wheels)/[\w.]`)

// TestNoMachinePaths: a tracked file names nothing that only one machine has.
func TestNoMachinePaths(t *testing.T) {
	for _, name := range tracked(t) {
		text, err := os.ReadFile(filepath.Join(rootDir, name))
		if os.IsNotExist(err) { // deleted, not committed yet
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if bytes.IndexByte(text, 0) >= 0 || strings.Contains(name, "testdata/") || strings.HasPrefix(name, "internal/lint/") { // binary, recorded, or about the rule
			continue
		}
		for i, line := range bytes.Split(text, []byte("\n")) {
			if m := machinePath.Find(line); m != nil {
				t.Errorf("%s:%d names a path of one machine: %q", name, i+1, m)
			}
		}
	}
}

// tracked lists the files under version control.
func tracked(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z")
	cmd.Dir = rootDir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}
