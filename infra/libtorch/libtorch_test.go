package libtorch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestInstallWritesWhatEnvNames(t *testing.T) {
	root := filepath.Join(t.TempDir(), "with space")
	for range 2 { // the second time over existing files
		if err := Install(root); err != nil {
			t.Fatal(err)
		}
	}
	env := strings.Join(Env(root), "\n")
	header := filepath.Join(compatDir(root), "include", "gotch_compat.h")
	if !strings.Contains(env, "-include '"+header+"'") {
		t.Errorf("the header's path is not quoted in\n%s", env)
	}
	if _, err := os.Stat(header); err != nil {
		t.Error(err)
	}
	for _, name := range shims {
		b, err := os.ReadFile(filepath.Join(compatDir(root), "shims", "lib"+name+".a"))
		if err != nil || string(b) != emptyArchive {
			t.Errorf("shim %s: %q, %v", name, b, err)
		}
	}
}

func TestRootHonoursXDG(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", "/somewhere")
	root, err := Root()
	if err != nil || root != "/somewhere/duratune/libtorch-"+Version {
		t.Errorf("Root() = %q, %v", root, err)
	}
}
