package stack

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/infra/setup"
)

func TestPortsOverride(t *testing.T) {
	env := map[string]string{"DURATUNE_PORT_S3": "0", "DURATUNE_PORT_MLFLOW": "5055"}
	p := DefaultPorts
	if err := p.Override(func(key string) string { return env[key] }); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Ports{Temporal: 7233, TemporalUI: 8233, S3: 0, MLflow: 5055, CPUMetrics: 9464, GPUMetrics: 9465}, p); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	env = map[string]string{"DURATUNE_PORT_S3": "seven", "DURATUNE_PORT_TEMPORAL": "70000"}
	err := p.Override(func(key string) string { return env[key] })
	for _, want := range []string{`DURATUNE_PORT_S3: got "seven"`, `DURATUNE_PORT_TEMPORAL: got "70000"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestPortsSettle(t *testing.T) {
	var free Ports
	if err := free.settle(); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, v := range free.portVars() {
		if *v.port == 0 || seen[*v.port] {
			t.Errorf("%s got port %d, want a port of its own", v.server, *v.port)
		}
		if *v.port < firstFree || *v.port >= firstFree+freePorts {
			t.Errorf("%s got port %d, which any connection may take while the server is away", v.server, *v.port)
		}
		seen[*v.port] = true
	}

	var taken [2]net.Listener
	for i := range taken {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		taken[i] = l
	}
	port := func(i int) int { return taken[i].Addr().(*net.TCPAddr).Port }
	p := Ports{S3: port(0), MLflow: port(1)}
	err := p.settle()
	if err == nil {
		t.Fatal("taken ports were accepted")
	}
	for _, want := range []string{"DURATUNE_PORT_S3", "DURATUNE_PORT_MLFLOW", "the S3 gateway", "is taken"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %q: %v", want, err)
		}
	}
}

func TestInstanceKeepsItsCredentials(t *testing.T) {
	state := filepath.Join(t.TempDir(), "x")
	in, err := Load(state)
	if err != nil {
		t.Fatal(err)
	}
	in.Ports.MLflow = 5055
	if err := in.save(); err != nil {
		t.Fatal(err)
	}
	again, err := Load(state)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, again); diff != "" {
		t.Errorf("instance (-saved +loaded):\n%s", diff)
	}
	if len(again.SecretKey) < 40 {
		t.Errorf("secret key has %d characters, want at least 40", len(again.SecretKey))
	}
	info, err := os.Stat(again.file())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the credentials has mode %v, want 0600", info.Mode())
	}
}

func TestStateDir(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/state")
	if got, err := StateDir("a"); err != nil || got != "/state/duratune/a" {
		t.Errorf("StateDir = %q, %v", got, err)
	}
	for _, name := range []string{"", "..", "a/b", ".hidden"} {
		if got, err := StateDir(name); err == nil {
			t.Errorf("StateDir(%q) = %q, want an error", name, got)
		}
	}
}

func TestLockInstance(t *testing.T) {
	state := t.TempDir()
	if running(state) {
		t.Error("an instance without a supervisor runs")
	}
	unlock, err := lockInstance(state)
	if err != nil {
		t.Fatal(err)
	}
	if !running(state) {
		t.Error("a locked instance does not run")
	}
	if _, err := lockInstance(state); !errors.Is(err, ErrRunning) {
		t.Errorf("a second supervisor got %v, want ErrRunning", err)
	}
	unlock()
	if running(state) {
		t.Error("the instance runs after its supervisor has gone")
	}
	if _, err := ReadStatus(state); !errors.Is(err, ErrDown) {
		t.Errorf("ReadStatus gave %v, want ErrDown", err)
	}
}

// TestWorkerEnv: a child sees the instance's servers, whatever servers the caller's own environment names.
func TestWorkerEnv(t *testing.T) {
	t.Setenv("AWS_PROFILE", "production")
	t.Setenv("TEMPORAL_TLS_CERT", "mine.pem")
	t.Setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
	t.Setenv("HF_TOKEN", "hf_x")
	t.Setenv("DURATUNE_DATA_ROOTS", "/data")
	t.Setenv("NO_PROXY", "example.com")
	in := Instance{State: t.TempDir(), Ports: DefaultPorts, AccessKey: "a", SecretKey: "s"}
	got := map[string]string{}
	for _, kv := range in.childEnv(in.workerEnv(setup.Paths{Assets: "/assets"})...) {
		key, value, _ := strings.Cut(kv, "=")
		got[key] = value // the last one counts
	}
	for key, want := range map[string]string{
		"MLFLOW_TRACKING_URI": "http://127.0.0.1:5050", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:7070", "TEMPORAL_ADDRESS": "127.0.0.1:7233",
		"AWS_SECRET_ACCESS_KEY": "s", "HF_TOKEN": "hf_x", "DURATUNE_DATA_ROOTS": "/assets:/data", "DURATUNE_STORE": "s3://duratune/runs",
		"DURATUNE_TEMPORAL_UI": "http://127.0.0.1:8233", "NO_PROXY": "example.com,127.0.0.1,localhost", "AWS_PROFILE": "", "TEMPORAL_TLS_CERT": "",
		markVar: in.State,
	} {
		if got[key] != want {
			t.Errorf("%s is %q, want %q", key, got[key], want)
		}
	}
}

func TestLogTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("first line\nsecond line\nthird line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, want := logTail(path, 25), "    second line\n    third line"; got != want {
		t.Errorf("logTail = %q, want %q", got, want)
	}
	if got := logTail(path+"x", 25); got != "" {
		t.Errorf("logTail of no file = %q", got)
	}
}

// TestLooksLeaveTheLockFree: people who look for a supervisor hold its lock for a moment, which one that starts waits out.
func TestLooksLeaveTheLockFree(t *testing.T) {
	state := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	defer looking.Wait()
	defer cancel()
	looking.Go(func() {
		for ctx.Err() == nil {
			running(state)
		}
	})
	for range 500 {
		unlock, err := lockInstance(state)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
	}
}
