package mlflow_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/artifact/artifacttest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
)

// gatewayEnv is what a program needs to reach the gateway.
func gatewayEnv(g *artifacttest.Gateway) map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": artifacttest.AccessKey, "AWS_SECRET_ACCESS_KEY": artifacttest.SecretKey, "AWS_DEFAULT_REGION": "us-east-1",
		"MLFLOW_S3_ENDPOINT_URL": g.Endpoint,
	}
}

// withoutAWS hides whatever credentials this machine has.
func withoutAWS(t *testing.T) {
	t.Helper()
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("HOME", t.TempDir())
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"} {
		t.Setenv(name, "") // restores it later
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
}

// direct returns a client that reaches the gateway with credentials from the environment.
func direct(t *testing.T, uri string, g *artifacttest.Gateway) *mlflow.Client {
	t.Helper()
	withoutAWS(t)
	env := gatewayEnv(g)
	for k, v := range env {
		t.Setenv(k, v)
	}
	env["MLFLOW_TRACKING_URI"] = uri
	cfg, err := mlflow.ConfigFromEnv(func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	c, err := mlflow.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// weights is 21 MiB: several parts by every way.
func weights() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 21<<16) }

// TestS3Direct uploads to s3:// past the server.
func TestS3Direct(t *testing.T) {
	g := artifacttest.StartGateway(t)
	s := mlflowtest.New(t, mlflowtest.Options{ArtifactRoot: "s3://bucket/mlflow"})
	c := direct(t, s.URL(), g)
	suiteArtifacts(t, c)
	r := newRun(t, c)
	body := weights()
	roundTrip(t, c, r.ArtifactURI+"/sub", body)
	if len(s.Files()) != 0 || len(s.Calls("presigned")) != 0 {
		t.Error("artifacts went through the server")
	}
	// Progress comes from parts that were sent, and ends at the size.
	var marks []int64
	err := c.UploadArtifact(t.Context(), r.ArtifactURI, "w", bytes.NewReader(body), int64(len(body)), func(n int64) { marks = append(marks, n) })
	if err != nil || len(marks) < 2 || marks[len(marks)-1] != int64(len(body)) {
		t.Errorf("progress %v, %v; want several, up to %d", marks, err, len(body))
	}
	// Faults: what is not there, a file shorter than announced, a disk that fails.
	if _, err := c.DownloadArtifact(t.Context(), r.ArtifactURI, "nothing", io.Discard, nil); !errors.Is(err, mlflow.ErrNotFound) {
		t.Errorf("missing object: got %v, want ErrNotFound", err)
	}
	if _, err := c.ListArtifacts(t.Context(), "s3://nobucket/x", ""); !errors.Is(err, mlflow.ErrRejected) {
		t.Errorf("missing bucket: got %v, want ErrRejected", err)
	}
	if err := c.UploadArtifact(t.Context(), r.ArtifactURI, "short", strings.NewReader("x"), 5, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short file: got %v", err)
	}
	err = c.UploadArtifact(t.Context(), r.ArtifactURI, "broken", io.NewSectionReader(brokenDisk{}, 0, 5), 5, nil)
	if err == nil || errors.Is(err, mlflow.ErrUnavailable) || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("broken disk: got %v", err)
	}
}

// TestS3Away has credentials but nobody at the endpoint.
func TestS3Away(t *testing.T) {
	c := direct(t, "http://"+artifacttest.FreeAddr(t), &artifacttest.Gateway{Endpoint: "http://" + artifacttest.FreeAddr(t)})
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	err := c.UploadArtifact(t.Context(), "s3://bucket/1/r/artifacts", "x", strings.NewReader("x"), 1, nil)
	if !errors.Is(err, mlflow.ErrUnavailable) || !strings.Contains(err.Error(), "s3://bucket/1/r/artifacts/x") {
		t.Errorf("got %v, want ErrUnavailable naming the object", err)
	}
}

// TestS3WithoutCredentials names both ways where neither is open.
func TestS3WithoutCredentials(t *testing.T) {
	withoutAWS(t)
	s := mlflowtest.New(t, mlflowtest.Options{})
	err := connect(t, s.URL()).UploadArtifact(t.Context(), "s3://bucket/elsewhere", "x", strings.NewReader("x"), 1, nil)
	if !errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), "needs S3 credentials") {
		t.Errorf("got %v", err)
	}
}

// TestS3Servers runs real servers on S3: through the server, in parts, direct, and by presigned URLs.
func TestS3Servers(t *testing.T) {
	g := artifacttest.StartGateway(t)
	var env []string
	for k, v := range gatewayEnv(g) {
		env = append(env, k+"="+v)
	}
	t.Run("destination", func(t *testing.T) {
		withoutAWS(t)
		c := connect(t, startServer(t, env, "--artifacts-destination", "s3://bucket/proxied"))
		c.SetMultipartFrom(20 << 20)
		suiteArtifacts(t, c)
		r := newRun(t, c)
		roundTrip(t, c, r.ArtifactURI+"/parts", weights())
		if got := stored(t, g, "proxied"); got < len(weights()) {
			t.Errorf("%d bytes in the bucket", got)
		}
	})
	t.Run("root", func(t *testing.T) {
		uri := startServer(t, env, "--default-artifact-root", "s3://bucket/root", "--no-serve-artifacts")
		t.Run("direct", func(t *testing.T) {
			c := direct(t, uri, g)
			suiteArtifacts(t, c)
			roundTrip(t, c, newRun(t, c).ArtifactURI+"/sub", weights())
		})
		t.Run("presigned", func(t *testing.T) {
			withoutAWS(t)
			c := connect(t, uri)
			suiteArtifacts(t, c)
			r := newRun(t, c)
			m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: r.ExperimentID, RunID: r.ID, Name: "m", Key: t.Name() + "/m"})
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, c, m.ArtifactURI, weights())
		})
	})
}

// stored sums the bytes of the files below a prefix of the bucket.
func stored(t *testing.T, g *artifacttest.Gateway, prefix string) int {
	t.Helper()
	var sum int
	root := filepath.Join(g.Folder, "bucket", prefix)
	err := filepath.Walk(root, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			sum += int(info.Size())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}
