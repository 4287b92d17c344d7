package hub_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
)

const testToken = "hf_testtokenthatmustnotleak"

// fixture is a hub with one model and a client of it that does not really pause between tries.
type fixture struct {
	*hubtest.Server
	root   string
	config hub.Config
	client *hub.Client

	mu    sync.Mutex
	waits []time.Duration // the pauses that the client would have made
}

// weights is large enough for a transfer to be cut in the middle of it.
var weights = bytes.Repeat([]byte("0123456789abcdef"), 64<<10)

// model is the content of the fixture's model, by path.
var model = map[string]string{
	"config.json":           `{"model_type": "distilbert"}`,
	"model.safetensors":     string(weights),
	"tokenizer.json":        `{"version": "1.0"}`,
	"tokenizer_config.json": `{}`,
	"vocab.txt":             "[PAD]\n[UNK]\n",
	"README.md":             "# A model\n",
	"pytorch_model.bin":     "never read",
	"modeling_evil.py":      "never read",
	"onnx/model.onnx":       "never read",
}

const modelURI = "hf://acme/tiny"

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{root: t.TempDir()}
	put(t, f.root, "models/acme/tiny/main", model)
	f.Server = hubtest.Start(t, f.root)
	endpoint, err := url.Parse(f.URL)
	if err != nil {
		t.Fatal(err)
	}
	f.config = hub.Config{Endpoint: endpoint, Token: testToken, CacheDir: t.TempDir()}
	f.client = f.newClient(f.config)
	captureLog(t)
	return f
}

// newClient returns another client, e.g. of another process with the same cache.
func (f *fixture) newClient(cfg hub.Config) *hub.Client {
	c := hub.New(cfg)
	c.SetWait(func(ctx context.Context, d time.Duration) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.waits = append(f.waits, d)
		return ctx.Err()
	})
	return c
}

// put writes files below root/dir.
func put(t *testing.T, root, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(root, filepath.FromSlash(dir), filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// read returns the files below dir by their slash-separated paths.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// captureLog looks for secrets in all that is logged while the test runs.
func captureLog(t *testing.T) {
	t.Helper()
	var mu sync.Mutex
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil)))
	t.Cleanup(func() {
		slog.SetDefault(before)
		mu.Lock()
		defer mu.Unlock()
		checkSecrets(t, log.String())
	})
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// checkSecrets fails if a text holds the token or a signed URL's signature.
func checkSecrets(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{testToken, "hubtest-signed-url-secret"} {
		if bytes.Contains([]byte(text), []byte(secret)) {
			t.Errorf("secret in: %s", text)
		}
	}
}
