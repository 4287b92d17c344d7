package mlflow_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/duratune/duratune/internal/mlflow"
)

// TestServerBasicAuth talks to a real server with basic authentication (mlflow[auth]). Every request costs it a
// password hash of 0.2 s and more, so that it gets a part of the suite only.
func TestServerBasicAuth(t *testing.T) {
	program := os.Getenv("DURATUNE_MLFLOW")
	if program == "" {
		t.Skip("DURATUNE_MLFLOW: not set, want the path of an mlflow executable")
	}
	if exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(program), "python"), "-c", "import flask_wtf").Run() != nil {
		t.Skip("mlflow[auth]: Flask-WTF is not installed beside DURATUNE_MLFLOW")
	}
	const password = "correct horse battery"
	ini := filepath.Join(t.TempDir(), "auth.ini")
	text := "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///" + filepath.Join(t.TempDir(), "auth.db") +
		"\nadmin_username = admin\nadmin_password = " + password + "\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
	if err := os.WriteFile(ini, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	uri := startServer(t, []string{"MLFLOW_FLASK_SERVER_SECRET_KEY=test", "MLFLOW_AUTH_CONFIG_PATH=" + ini}, "--app-name", "basic-auth")
	for _, cfg := range []mlflow.Config{{}, {Username: "admin", Password: mlflow.NewSecret("wrong")}, {Token: mlflow.NewSecret("token")}} {
		cfg.TrackingURI = uri
		c, err := mlflow.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.CheckHealth(t.Context()); !errors.Is(err, mlflow.ErrRejected) {
			t.Errorf("%+v: got %v, want ErrRejected", cfg, err)
		}
	}
	c, err := mlflow.New(mlflow.Config{TrackingURI: uri, Username: "admin", Password: mlflow.NewSecret(password)})
	if err != nil {
		t.Fatal(err)
	}
	suiteExperiment(t, c)
	suiteArtifacts(t, c)
}
