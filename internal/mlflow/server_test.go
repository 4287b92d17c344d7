package mlflow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

// TestServer runs the suite on a real MLflow server.
func TestServer(t *testing.T) { suite(t, connect(t, startServer(t, nil))) }

// startServer starts the server that DURATUNE_MLFLOW names (the path of the mlflow executable) on a free port, with
// a fresh database, and ends it with the test. env and args are added to its environment and command line.
func startServer(t *testing.T, env []string, args ...string) string {
	t.Helper()
	program := os.Getenv("DURATUNE_MLFLOW")
	if program == "" {
		t.Skip("DURATUNE_MLFLOW: not set, want the path of an mlflow executable")
	}
	dir := t.TempDir()
	address := artifacttest.FreeAddr(t)
	_, port, _ := net.SplitHostPort(address)
	cmd := exec.Command(program, append([]string{
		"server", "--workers", "1", "--host", "127.0.0.1", "--port", port,
		"--backend-store-uri", "sqlite:///" + filepath.Join(dir, "db.sqlite"), "--artifacts-destination", filepath.Join(dir, "artifacts"),
	}, args...)...)
	cmd.Env = append(os.Environ(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	cmd.Env = append(cmd.Env, env...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that its children end with it
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(context.WithoutCancel(t.Context())) // t.Context ends before the clean-up
	go func() {
		_ = cmd.Wait()
		end()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-ended.Done()
		_ = log.Close()
		if t.Failed() {
			out, _ := os.ReadFile(log.Name())
			t.Logf("the server's log ends:\n%s", out[max(0, len(out)-4000):])
		}
	})
	if err := awaitHealth(ended, "http://"+address); err != nil {
		t.Fatal(err)
	}
	return "http://" + address
}

// awaitHealth asks /health until it answers or the server has ended; a cold start takes 5 to 20 s here.
func awaitHealth(ctx context.Context, uri string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri+"/health", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("no MLflow at %s", uri), ctx.Err())
		case <-tick.C:
		}
	}
}
