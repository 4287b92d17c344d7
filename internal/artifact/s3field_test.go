package artifact_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"hash/crc64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

// large is what goes up in three parts.
var large = bytes.Repeat([]byte("0123456789abcde\n"), 18<<20/16)

// open opens a store in the gateway's bucket through a proxy.
func (p *proxied) open(t *testing.T, g *artifacttest.Gateway, cfg artifact.Config) artifact.Store {
	t.Helper()
	if cfg.AWS == nil {
		base := g.AWS()
		cfg.AWS = &base
	}
	cfg.AWS.BaseEndpoint = aws.String(p.URL)
	store, err := artifact.Open(t.Context(), "s3://bucket/p", cfg)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// putAll uploads a small, a conditional and a large object, and reads the large one back, whose Ref it returns.
func putAll(t *testing.T, s artifact.Store) artifact.Ref {
	t.Helper()
	if _, err := s.Put(t.Context(), "small", strings.NewReader("small"), nil); err != nil {
		t.Error(err)
	}
	if _, err := s.PutIfAbsent(t.Context(), "absent", []byte("absent")); err != nil {
		t.Error(err)
	}
	ref, err := s.Put(t.Context(), "large", bytes.NewReader(large), nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, large) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	return ref
}

// The store keeps, for the whole object, the CRC64NVME of what we sent; every request that writes carries it.
func TestS3Checksum(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := newProxy(t, g)
	putAll(t, p.open(t, g, artifact.Config{}))
	writes := 0
	for _, line := range p.requests("x-amz-checksum-crc64nvme", "x-amz-checksum-algorithm") {
		if strings.HasPrefix(line, "PUT ") {
			writes++
			if strings.HasSuffix(line, ":") {
				t.Errorf("without checksum: %s", line)
			}
		}
	}
	if writes != 5 { // of which three are parts
		t.Errorf("%d writes", writes)
	}
	client := s3.NewFromConfig(g.AWS(), func(o *s3.Options) { o.UsePathStyle = true })
	for key, body := range map[string][]byte{"small": []byte("small"), "absent": []byte("absent"), "large": large} {
		out, err := client.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bucket"), Key: aws.String("p/" + key), ChecksumMode: types.ChecksumModeEnabled})
		if err != nil {
			t.Fatal(err)
		}
		sum := crc64.Checksum(body, crc64.MakeTable(0x9a6c9329ac4bc9b5))
		want := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, sum))
		if got := aws.ToString(out.ChecksumCRC64NVME); got != want || out.ChecksumType != types.ChecksumTypeFullObject {
			t.Errorf("%s: %s checksum %q, want %q of the full object", key, out.ChecksumType, got, want)
		}
	}
}

// What the store's disk has damaged is noticed by the store's checksum even where nobody knows a digest, as for a source.
func TestS3DamagedAtRest(t *testing.T) {
	g := artifacttest.StartGateway(t)
	s := g.Store(t, "p")
	ref := putAll(t, s)
	for _, key := range []string{"small", "absent", "large"} {
		name := filepath.Join(g.Folder, "bucket", "p", key)
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("!"), 1)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		r, err := s.(artifact.Source).Read(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); !errors.Is(err, artifact.ErrCorrupt) || !strings.Contains(err.Error(), "CRC64NVME") {
			t.Errorf("%s: %v, want ErrCorrupt by CRC64NVME", key, err)
		}
	}
	r, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(io.Discard, r); !errors.Is(err, artifact.ErrCorrupt) {
		t.Errorf("by its Ref: %v, want ErrCorrupt", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A reader that has seen enough of a large object closes it without waiting for the rest.
func TestS3CloseEarly(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := newProxy(t, g)
	s := p.open(t, g, artifact.Config{})
	ref := putAll(t, s)
	stalled := make(chan struct{})
	p.set(&fault{method: http.MethodGet, times: 1, answer: func(r *http.Response) { r.Body = &stall{r.Body, 4 << 20, stalled} }})
	r, err := s.Open(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	close(stalled)
	if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("read after close: %v", err)
	}
}

// stall waits after the first bytes of a body.
type stall struct {
	io.ReadCloser
	first int
	until <-chan struct{}
}

func (s *stall) Read(p []byte) (int, error) {
	if s.first <= 0 {
		<-s.until
	}
	n, err := s.ReadCloser.Read(p)
	s.first -= n
	return n, err
}

// Over TLS requests are not signed with a digest of their body: the checksum alone lets the store notice damage.
func TestS3DamagedOnItsWay(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := unstarted(t, g)
	p.StartTLS()
	bundle(t, p)
	s, err := artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p.set(&fault{method: http.MethodPut, times: -1, body: func(r io.ReadCloser) io.ReadCloser { return &changed{r, 40, -1, 0} }})
	_, err = s.Put(t.Context(), "k", strings.NewReader(strings.Repeat("the bytes of an object ", 100)), nil)
	if !errors.Is(err, artifact.ErrUnavailable) || !strings.Contains(err.Error(), "BadDigest") {
		t.Errorf("got %v, want ErrUnavailable by BadDigest", err)
	}
	p.set(nil)
	if _, _, err := s.Get(t.Context(), "k", 1); !errors.Is(err, artifact.ErrNotFound) {
		t.Errorf("the damaged object: %v", err)
	}
	for _, line := range p.requests("x-amz-trailer", "x-amz-content-sha256") {
		if strings.HasPrefix(line, "PUT ") && !strings.HasSuffix(line, ": x-amz-checksum-crc64nvme STREAMING-UNSIGNED-PAYLOAD-TRAILER") {
			t.Error(line)
		}
	}
}

// A store that does not know CRC64NVME gets what it knows, and the log says so once.
func TestS3Older(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := newProxy(t, g)
	p.deny = func(r *http.Request) string {
		if r.Header.Get("x-amz-checksum-crc64nvme") != "" || r.Header.Get("x-amz-checksum-algorithm") == "CRC64NVME" {
			return "InvalidRequest"
		}
		return ""
	}
	var log bytes.Buffer
	old := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(old) })
	putAll(t, p.open(t, g, artifact.Config{}))
	if n := strings.Count(log.String(), "does not take CRC64NVME"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	if lines := p.requests("x-amz-checksum-crc64nvme"); len(lines) != 9 { // the refused one; two; three parts between two; a read
		t.Errorf("%d requests: %q", len(lines), lines)
	}
	base := g.AWS()
	base.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired // by AWS_REQUEST_CHECKSUM_CALCULATION
	putAll(t, p.open(t, g, artifact.Config{AWS: &base}))
	for _, line := range p.requests("x-amz-checksum-crc64nvme", "x-amz-checksum-crc32", "x-amz-checksum-algorithm", "x-amz-trailer") {
		if !strings.HasSuffix(line, ":") {
			t.Errorf("a checksum that was switched off: %s", line)
		}
	}
}

// What writes says how the store shall encrypt; what reads does not.
func TestS3Encryption(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := newProxy(t, g)
	putAll(t, p.open(t, g, artifact.Config{SSE: "aws:kms", KMSKey: "alias/runs"}))
	want := map[string]string{ // the answers' order of the parts is not ours
		"PUT /bucket/p/small:": " aws:kms alias/runs", "PUT /bucket/p/absent:": " aws:kms alias/runs",
		"POST /bucket/p/large:": " aws:kms alias/runs", "PUT /bucket/p/large:": "", "GET /bucket/p/large:": "",
	}
	host := strings.TrimPrefix(p.URL, "http://")
	got := map[string]string{}
	for _, line := range p.requests("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id") {
		request, values, _ := strings.Cut(strings.Replace(line, host, "", 1), ":")
		got[request+":"] = max(got[request+":"], values) // the second POST ends what the first has begun
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// bundle makes the proxy's certificate known as AWS_CA_BUNDLE, and the gateway's credentials to the environment.
func bundle(t *testing.T, p *proxied) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	body := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"AWS_CA_BUNDLE": file, "AWS_ENDPOINT_URL_S3": p.URL, "AWS_REGION": "us-east-1",
		"AWS_ACCESS_KEY_ID": artifacttest.AccessKey, "AWS_SECRET_ACCESS_KEY": artifacttest.SecretKey} {
		t.Setenv(key, value)
	}
}

// A store with a certificate of the house's own authority is reached with AWS_CA_BUNDLE, and not without.
func TestS3Authority(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := unstarted(t, g)
	p.StartTLS()
	bundle(t, p)
	for _, want := range []error{nil, artifact.ErrUnavailable} {
		if want != nil {
			t.Setenv("AWS_CA_BUNDLE", "")
		}
		s, err := artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Check(t.Context()); !errors.Is(err, want) || want != nil && !strings.Contains(err.Error(), "x509") {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// The bucket stands in the host name, and the signature is for the region, where that is asked for.
func TestS3VirtualHostAndRegion(t *testing.T) {
	g := artifacttest.StartGateway(t, "--virtual-domain", "s3.duratune.test")
	p := newProxy(t, g)
	address := strings.TrimPrefix(p.URL, "http://")
	base := g.AWS()
	base.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(tr *http.Transport) {
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) { // the resolver of this domain
			return new(net.Dialer).DialContext(ctx, network, address)
		}
	})
	base.BaseEndpoint = aws.String("http://s3.duratune.test")
	s, err := artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{AWS: &base, Addressing: "virtual"})
	if err != nil {
		t.Fatal(err)
	}
	putAll(t, s)
	for _, line := range p.requests("Authorization") {
		if !strings.Contains(line, " bucket.s3.duratune.test/p/") || !strings.Contains(line, "/us-east-1/s3/aws4_request") {
			t.Error(line)
		}
	}
	base.Region = "eu-north-1"
	if s, err = artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{AWS: &base, Addressing: "virtual"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, artifact.ErrDenied) || !strings.Contains(err.Error(), `expecting "us-east-1"`) {
		t.Errorf("another region: %v, want ErrDenied that names the right one", err)
	}
}

func TestConfigFromEnv(t *testing.T) {
	const addressing, sse, key = "DURATUNE_S3_ADDRESSING", "DURATUNE_S3_SSE", "DURATUNE_S3_SSE_KMS_KEY_ID"
	for name, tc := range map[string]struct {
		env  map[string]string
		want artifact.Config
		bad  string // what the error names
	}{
		"nothing":             {},
		"all":                 {map[string]string{addressing: "virtual", sse: "aws:kms", key: "k"}, artifact.Config{Addressing: "virtual", SSE: "aws:kms", KMSKey: "k"}, ""},
		"unknown addressing":  {map[string]string{addressing: "dns"}, artifact.Config{}, addressing},
		"unknown encryption":  {map[string]string{sse: "aes256"}, artifact.Config{}, sse},
		"a key without a kms": {map[string]string{sse: "AES256", key: "k"}, artifact.Config{}, key},
	} {
		got, err := artifact.ConfigFromEnv(func(key string) string { return tc.env[key] })
		if diff := cmp.Diff(tc.want, got); diff != "" || (err != nil) != (tc.bad != "") || err != nil && !strings.Contains(err.Error(), tc.bad) {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
}
