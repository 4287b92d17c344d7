package artifact_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

// errorOf calls every method and returns their errors by name.
func errorsOf(ctx context.Context, s artifact.Store, ref artifact.Ref) map[string]error {
	_, putErr := s.Put(ctx, "k", strings.NewReader("x"), nil)
	_, absentErr := s.PutIfAbsent(ctx, "q", []byte("x"))
	_, _, getErr := s.Get(ctx, "k", 1)
	_, openErr := s.Open(ctx, ref)
	_, abortErr := s.AbortUploads(ctx, "")
	var listErr error
	for _, listErr = range s.List(ctx, "") {
	}
	return map[string]error{"put": putErr, "put if absent": absentErr, "get": getErr, "open": openErr, "list": listErr,
		"abort uploads": abortErr, "delete": s.Delete(ctx, "k"), "check": s.Check(ctx)}
}

// A wrong key, a wrong secret and a missing bucket all are "refused", never "not found": some are a 404 on the wire.
func TestS3Refused(t *testing.T) {
	g := artifacttest.StartGateway(t)
	for name, tc := range map[string]struct{ key, secret, uri, want string }{
		"unknown key":    {"nobody", "secret-of-nobody", "s3://bucket/p", "XAdminUserNotFound (404)"},
		"wrong secret":   {artifacttest.AccessKey, "wrong-secret", "s3://bucket/p", "SignatureDoesNotMatch (403)"},
		"missing bucket": {artifacttest.AccessKey, artifacttest.SecretKey, "s3://nobucket/p", "NoSuchBucket (404)"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := g.AWS()
			cfg.Credentials = credentials.NewStaticCredentialsProvider(tc.key, tc.secret, "")
			s, err := artifact.Open(t.Context(), tc.uri, artifact.Config{AWS: &cfg})
			if err != nil {
				t.Fatal(err)
			}
			ref := artifact.Ref{URI: tc.uri + "/k", SHA256: strings.Repeat("0", 64)}
			for op, err := range errorsOf(t.Context(), s, ref) {
				if !errors.Is(err, artifact.ErrDenied) || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), tc.secret) {
					t.Errorf("%s: %v, want ErrDenied with %s", op, err, tc.want)
				}
			}
		})
	}
}

// A server that is not there is "unavailable", and the short budget of retries ends in seconds.
func TestS3Unreachable(t *testing.T) {
	cfg := (&artifacttest.Gateway{Endpoint: "http://" + artifacttest.FreeAddr(t)}).AWS()
	s, err := artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{AWS: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = s.Put(t.Context(), "k", strings.NewReader("x"), nil)
	if !errors.Is(err, artifact.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "http://") {
		t.Errorf("got %v, want ErrUnavailable without a URL", err)
	}
	if took := time.Since(start); took > time.Minute { // the SDK's waits come to 5 s at most; the rest is for a machine that stands still
		t.Errorf("gave up after %v", took)
	}
	// Many outages later, a call still gets its own retries: nothing remembers.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Put(ctx, "k", strings.NewReader("x"), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
}

func TestS3AbortUploads(t *testing.T) {
	g := artifacttest.StartGateway(t)
	s := g.Store(t, "root")
	client := s3.NewFromConfig(g.AWS(), func(o *s3.Options) { o.UsePathStyle = true })
	for _, key := range []string{"root/run/1/a", "root/run/1/b", "root/run/10/c", "root/other", "elsewhere"} {
		if _, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String("bucket"), Key: &key}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		prefix string
		want   int
	}{{"run/1", 2}, {"run/1", 0}, {"run", 1}, {"", 1}, {"", 0}} {
		if n, err := s.AbortUploads(t.Context(), tc.prefix); n != tc.want || err != nil {
			t.Errorf("below %q: %d, %v, want %d", tc.prefix, n, err, tc.want)
		}
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for uri, want := range map[string]bool{
		"mem:": true, "file://" + dir: true, "s3://bucket": true, "s3://bucket/a/b/": true,
		"": false, "bucket": false, "s3://": false, "s3:///x": false, "file://host/x": false, "file:x": false, "http://host/x": false, "mem:x": false,
		"s3://key:secret@bucket/x": false, "s3://bucket/x?secret=1": false, "s3://bucket/a//b": false, "s3://bucket/../b": false,
	} {
		_, err := artifact.Open(t.Context(), uri, artifact.Config{AWS: &aws.Config{Region: "us-east-1"}})
		if (err == nil) != want {
			t.Errorf("%s: %v", uri, err)
		}
		if !want && (!errors.Is(err, artifact.ErrInvalidKey) || strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "secret=")) {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

// The environment decides where the store is, as for every AWS client.
func TestOpenFromEnvironment(t *testing.T) {
	g := artifacttest.StartGateway(t)
	t.Setenv("AWS_ENDPOINT_URL_S3", g.Endpoint)
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_ACCESS_KEY_ID", artifacttest.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", artifacttest.SecretKey)
	s, err := artifact.Open(t.Context(), "s3://bucket/x", artifact.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
