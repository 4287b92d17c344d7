package artifacttest

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sys/unix"

	"github.com/duratune/duratune/internal/artifact"
)

// gatewayName is the S3 server that the local stack runs too; see infra/tools/versitygw.
const gatewayName = "versitygw-v1.8.0"

// Credentials of every test gateway.
const (
	AccessKey = "test"
	SecretKey = "test-secret"
)

// Gateway is an S3 server on this machine.
type Gateway struct {
	Endpoint string // http://127.0.0.1:port
	Folder   string // where it keeps its buckets
}

// StartGateway starts an S3 server with one empty bucket, "bucket", for the duration of a test. The program is
// $DURATUNE_VERSITYGW, or the one that set-up put into the cache; where there is none the test is skipped. More options
// of the program may be given.
func StartGateway(t testing.TB, options ...string) *Gateway {
	t.Helper()
	program := os.Getenv("DURATUNE_VERSITYGW")
	if program == "" {
		cache, _ := os.UserCacheDir()
		program = filepath.Join(cache, "duratune", "bin", gatewayName)
	}
	if _, err := os.Stat(program); err != nil {
		t.Skipf("%s: not found; set DURATUNE_VERSITYGW", gatewayName)
	}
	addr := FreeAddr(t)
	g := &Gateway{Endpoint: "http://" + addr, Folder: t.TempDir()}
	cmd := exec.Command(program, append(append([]string{"--port", addr, "--quiet", "--health", "/health"}, options...), "posix", g.Folder)...)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+AccessKey, "ROOT_SECRET_KEY="+SecretKey)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
	})
	g.await(t)
	if _, err := s3.NewFromConfig(g.AWS(), pathStyle).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("bucket")}); err != nil {
		t.Fatal(err)
	}
	return g
}

func pathStyle(o *s3.Options) { o.UsePathStyle = true }

// FreeAddr is an address on this machine where nobody listens, kept for the test until it ends: connections are refused,
// nobody who asks for any free port gets it, and a server that sets SO_REUSEADDR, as all do, may listen on it.
func FreeAddr(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(bound.(*unix.SockaddrInet4).Port))
}

// await polls the gateway's health until it answers.
func (g *Gateway) await(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.Endpoint+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s did not answer on %s", gatewayName, g.Endpoint)
		}
	}
}

// AWS is a client configuration for the gateway.
func (g *Gateway) AWS() aws.Config {
	return aws.Config{
		Region: "us-east-1", BaseEndpoint: aws.String(g.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(AccessKey, SecretKey, ""),
	}
}

// Store opens the store at s3://bucket/prefix.
func (g *Gateway) Store(t testing.TB, prefix string) artifact.Store {
	t.Helper()
	cfg := g.AWS()
	s, err := artifact.Open(t.Context(), "s3://bucket/"+prefix, artifact.Config{AWS: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
