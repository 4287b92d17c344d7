package mlflow_test

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact/artifacttest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
)

func TestConfigFromEnv(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".mlflow"), 0o700); err != nil {
		t.Fatal(err)
	}
	ini := "[other]\nmlflow_tracking_username = no\n[mlflow]\nmlflow_tracking_username = filed\nmlflow_tracking_password = a=b\n"
	if err := os.WriteFile(filepath.Join(home, ".mlflow", "credentials"), []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		env  map[string]string
		want mlflow.Config
	}{
		{"plain", map[string]string{"MLFLOW_TRACKING_URI": "http://h:5000/prefix/"}, mlflow.Config{TrackingURI: "http://h:5000/prefix"}},
		{
			"user info moves out of the URI",
			map[string]string{"MLFLOW_TRACKING_URI": "https://u:p%40ss@h/?token=x#y"},
			mlflow.Config{TrackingURI: "https://h", Username: "u", Password: mlflow.NewSecret("p@ss")},
		},
		{
			"the environment wins over user info",
			map[string]string{"MLFLOW_TRACKING_URI": "http://u:p@h", "MLFLOW_TRACKING_USERNAME": "env", "MLFLOW_TRACKING_PASSWORD": "e"},
			mlflow.Config{TrackingURI: "http://h", Username: "env", Password: mlflow.NewSecret("e")},
		},
		{
			"credentials file",
			map[string]string{"MLFLOW_TRACKING_URI": "http://h", "HOME": home},
			mlflow.Config{TrackingURI: "http://h", Username: "filed", Password: mlflow.NewSecret("a=b")},
		},
		{
			"everything",
			map[string]string{
				"MLFLOW_TRACKING_URI": "http://h", "MLFLOW_TRACKING_TOKEN": "tok", "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca",
				"MLFLOW_TRACKING_CLIENT_CERT_PATH": "/cc", "MLFLOW_WORKSPACE": "ws", "MLFLOW_HTTP_REQUEST_TIMEOUT": "7", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
				"MLFLOW_S3_ENDPOINT_URL": "http://s3", "MLFLOW_S3_IGNORE_TLS": "true", "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "virtual",
				"MLFLOW_S3_EXPECTED_BUCKET_OWNER": "o", "MLFLOW_S3_UPLOAD_EXTRA_ARGS": `{"ServerSideEncryption": "aws:kms"}`,
			},
			mlflow.Config{
				TrackingURI: "http://h", Token: mlflow.NewSecret("tok"), CAFile: "/ca", ClientCertFile: "/cc", Workspace: "ws",
				Timeout: 7 * time.Second, MaxRetries: 1,
				S3: mlflow.S3Config{Endpoint: "http://s3", InsecureTLS: true, ExpectedOwner: "o", UploadArgs: map[string]string{"ServerSideEncryption": "aws:kms"}},
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.want.Timeout == 0 {
				test.want.Timeout, test.want.MaxRetries = 2*time.Minute, 3
			}
			got, err := mlflow.ConfigFromEnv(func(k string) string { return test.env[k] })
			secrets := cmp.Comparer(func(a, b mlflow.Secret) bool { return a.Reveal() == b.Reveal() })
			if diff := cmp.Diff(test.want, got, secrets); diff != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

// TestConfigRefused names every variable that cannot be honoured, all at once, and shows no secret.
func TestConfigRefused(t *testing.T) {
	env := map[string]string{
		"MLFLOW_TRACKING_URI": "databricks://user:hunter2@x", "MLFLOW_TRACKING_AWS_SIGV4": "true", "MLFLOW_TRACKING_AUTH": "kubernetes",
		"MLFLOW_HTTP_REQUEST_TIMEOUT": "soon", "MLFLOW_TRACKING_INSECURE_TLS": "1", "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca",
		"MLFLOW_S3_IGNORE_TLS": "maybe", "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "odd", "MLFLOW_S3_UPLOAD_EXTRA_ARGS": `{"Tagging": "a=b"}`,
	}
	_, err := mlflow.ConfigFromEnv(func(k string) string { return env[k] })
	if err == nil {
		t.Fatal("no error")
	}
	for name := range env {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in:\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a password is shown:\n%v", err)
	}
}

// TestSecrets prints a configuration and a failed call in every usual way.
func TestSecrets(t *testing.T) {
	env := map[string]string{"MLFLOW_TRACKING_URI": "http://user:hunter2@" + artifacttest.FreeAddr(t) + "?key=hunter2", "MLFLOW_TRACKING_TOKEN": "hunter2"}
	cfg, err := mlflow.ConfigFromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxRetries = 0
	c, err := mlflow.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	_, failed := c.GetRun(t.Context(), "r")
	encoded, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "config", cfg, "secret", cfg.Password, "err", failed)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.Token), string(encoded), logged.String(), failed.Error(), c.TrackingURI()} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}

// TestAuth sends each kind of credentials, and none.
func TestAuth(t *testing.T) {
	basic := mlflowtest.Options{Username: "u", Password: "p"}
	for _, test := range []struct {
		name string
		opts mlflowtest.Options
		cfg  mlflow.Config
		ok   bool
	}{
		{"basic", basic, mlflow.Config{Username: "u", Password: mlflow.NewSecret("p")}, true},
		{"basic wins over the token", basic, mlflow.Config{Username: "u", Password: mlflow.NewSecret("p"), Token: mlflow.NewSecret("t")}, true},
		{"bearer", mlflowtest.Options{Token: "t"}, mlflow.Config{Token: mlflow.NewSecret("t")}, true},
		{"wrong password", basic, mlflow.Config{Username: "u", Password: mlflow.NewSecret("x")}, false},
		{"none", basic, mlflow.Config{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mlflowtest.New(t, test.opts)
			test.cfg.TrackingURI, test.cfg.Workspace = s.URL(), "ws"
			c, err := mlflow.New(test.cfg)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.CheckHealth(t.Context())
			if (err == nil) != test.ok || !test.ok && (!errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), "MLFLOW_TRACKING_USERNAME")) {
				t.Errorf("got %v", err)
			}
			if got := s.Calls("version")[0].Header.Get("X-Mlflow-Workspace"); got != "ws" {
				t.Errorf("workspace header %q", got)
			}
		})
	}
}

// TestTLS trusts a server by its certificate, by nothing, and not at all.
func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/version") {
			_, _ = w.Write([]byte("3.17.2"))
		}
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		cfg  mlflow.Config
		ok   bool
	}{
		{"bundle", mlflow.Config{CAFile: ca}, true}, {"insecure", mlflow.Config{InsecureTLS: true}, true}, {"unknown", mlflow.Config{}, false},
	} {
		test.cfg.TrackingURI = s.URL
		c, err := mlflow.New(test.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.CheckHealth(t.Context()); (err == nil) != test.ok {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
	for _, cfg := range []mlflow.Config{{CAFile: "/nowhere"}, {ClientCertFile: "/nowhere"}} {
		cfg.TrackingURI = s.URL
		if _, err := mlflow.New(cfg); err == nil || !strings.Contains(err.Error(), "CERT_PATH") {
			t.Errorf("missing file: got %v", err)
		}
	}
}

func TestCleanName(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, want := range map[string]string{
		"eval_loss": "eval_loss", "a b/c:d.e-f": "a b/c:d.e-f", "naïve?": "na_ve_", "": "_", ".": "_", "..": "_", "../x": "__x", "/abs": "_abs",
		"a//b": "a__b", "a/../b": "a_.._b", "a/": "a_", "..hidden": "_hidden", "日本": "__",
	} {
		if got := mlflow.CleanName(name); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
	if a, b := mlflow.CleanName(long+"a"), mlflow.CleanName(long+"b"); len(a) != 250 || a == b {
		t.Errorf("long names: %d characters, equal %v", len(a), a == b)
	}
}
