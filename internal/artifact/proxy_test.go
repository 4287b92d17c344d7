package artifact_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

// fault is what a proxy before a real S3 server does to a request or to its answer.
type fault struct {
	name   string
	method string                            // of the requests that it hits
	times  int                               // how many of them; -1: all
	before func(http.ResponseWriter) bool    // answers instead of the server, and returns true
	body   func(io.ReadCloser) io.ReadCloser // changes what the client sends
	answer func(*http.Response)              // changes what the server answers
	put    error                             // what Put of a small, and of a large object returns; nil: it succeeds
	open   error                             // what reading returns
}

// proxied is a gateway behind a proxy.
type proxied struct {
	*httptest.Server
	mu    sync.Mutex
	fault *fault
	left  int
	hits  int
	seen  []*http.Request            // without bodies
	deny  func(*http.Request) string // the error code of a 400 in place of an answer, or ""; may be nil
}

func newProxy(t *testing.T, g *artifacttest.Gateway) *proxied {
	t.Helper()
	p := unstarted(t, g)
	p.Start()
	return p
}

// unstarted is a proxy that starts with or without TLS.
func unstarted(t *testing.T, g *artifacttest.Gateway) *proxied {
	t.Helper()
	target, err := url.Parse(g.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxied{}
	reverse := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			host := r.In.Host // which the signature covers
			r.SetURL(target)
			r.Out.Host = host
			if f, ok := r.In.Context().Value(faultKey{}).(*fault); ok && f.body != nil && r.Out.Body != nil {
				r.Out.Body = f.body(r.Out.Body)
			}
		},
		ModifyResponse: func(r *http.Response) error {
			if f, ok := r.Request.Context().Value(faultKey{}).(*fault); ok && f.answer != nil {
				f.answer(r)
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := p.next(r)
		if p.deny != nil {
			if code := p.deny(r); code != "" {
				_, _ = io.Copy(io.Discard, r.Body) // closed with a part unread, the connection is reset, and the answer may be lost
				refuse(http.StatusBadRequest, code)(w)
				return
			}
		}
		if f != nil && f.before != nil && f.before(w) {
			return
		}
		if f != nil {
			r = r.WithContext(context.WithValue(r.Context(), faultKey{}, f))
		}
		reverse.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

type faultKey struct{}

// set arms a fault.
func (p *proxied) set(f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.hits = f, 0
	if f != nil {
		p.left = f.times
	}
}

// next is the fault that hits a request, if any.
func (p *proxied) next(r *http.Request) *fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen = append(p.seen, r)
	if p.fault == nil || p.fault.method != r.Method || p.left == 0 {
		return nil
	}
	p.left--
	p.hits++
	return p.fault
}

// requests returns what has come since it was called last, as "METHOD host/path: values of the headers", without those
// that are not set.
func (p *proxied) requests(headers ...string) (lines []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.seen {
		line := r.Method + " " + r.Host + r.URL.Path + ":"
		for _, h := range headers {
			if v := r.Header.Get(h); v != "" {
				line += " " + v
			}
		}
		lines = append(lines, line)
	}
	p.seen = nil
	return lines
}

// changed flips a bit, or cuts off the end, of what is read behind the first bytes.
type changed struct {
	io.ReadCloser
	flip, cut int // offsets; -1: never
	at        int
}

func (c *changed) Read(b []byte) (int, error) {
	if c.cut >= 0 && c.at+len(b) > c.cut {
		b = b[:max(0, c.cut-c.at)]
		if len(b) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
	}
	n, err := c.ReadCloser.Read(b)
	if c.flip >= c.at && c.flip < c.at+n {
		b[c.flip-c.at] ^= 1
	}
	c.at += n
	return n, err
}

func refuse(status int, code string) func(http.ResponseWriter) bool {
	return func(w http.ResponseWriter) bool {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>injected</Message></Error>", code)
		return true
	}
}

// TestS3Faults breaks a real S3 server's traffic on its way: what can pass is tried again, what arrives damaged is never
// taken for the object, and each other answer has its kind.
func TestS3Faults(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries")
	}
	g := artifacttest.StartGateway(t)
	p := newProxy(t, g)
	cfg := g.AWS()
	cfg.BaseEndpoint = aws.String(p.URL)
	store, err := artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{AWS: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	slow := func(http.ResponseWriter) bool { <-time.After(200 * time.Millisecond); return false }
	for _, f := range []*fault{
		{name: "500 once", method: http.MethodPut, times: 1, before: refuse(500, "InternalError")},
		{name: "503 once", method: http.MethodGet, times: 1, before: refuse(503, "SlowDown")},
		{name: "500 always", method: http.MethodPut, times: -1, before: refuse(500, "InternalError"), put: artifact.ErrUnavailable},
		{name: "slow", method: http.MethodGet, times: 2, before: slow},
		{name: "upload damaged once", method: http.MethodPut, times: 1, body: func(r io.ReadCloser) io.ReadCloser { return &changed{r, 40, -1, 0} }, put: errAny},
		{name: "download damaged", method: http.MethodGet, times: -1, answer: func(r *http.Response) { r.Body = &changed{r.Body, 40, -1, 0} }, open: artifact.ErrCorrupt},
		{name: "wrong checksum", method: http.MethodGet, times: -1, answer: func(r *http.Response) { r.Header.Set("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=") }, open: artifact.ErrCorrupt},
		{name: "download cut off", method: http.MethodGet, times: -1, answer: func(r *http.Response) { r.Body = &changed{r.Body, -1, 40, 0} }, open: artifact.ErrUnavailable},
		{name: "expired", method: http.MethodPut, times: -1, before: refuse(400, "ExpiredToken"), put: artifact.ErrUnavailable},
		{name: "denied", method: http.MethodGet, times: -1, before: refuse(403, "AccessDenied"), open: artifact.ErrDenied},
	} {
		t.Run(f.name, func(t *testing.T) { checkFault(t, store, p, f) })
	}
}

// errAny stands for any outcome but damaged bytes under a good Ref.
var errAny = errors.New("any")

func checkFault(t *testing.T, store artifact.Store, p *proxied, f *fault) {
	t.Helper()
	key := strings.ReplaceAll(f.name, " ", "-")
	body := []byte(strings.Repeat("the bytes of an object ", 100))
	if f.method == http.MethodPut {
		p.set(f)
	}
	ref, err := store.Put(t.Context(), key, bytes.NewReader(body), nil)
	if f.put != errAny && !errors.Is(err, f.put) || f.put == nil && err != nil { //nolint:errorlint // the sentinel itself
		t.Fatalf("put: %v, want %v", err, f.put)
	}
	hits := p.hits
	p.set(nil)
	if err != nil {
		return
	}
	if f.method == http.MethodGet {
		p.set(f)
		defer p.set(nil)
	}
	r, err := store.Open(t.Context(), ref)
	var got []byte
	if err == nil {
		got, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if !errors.Is(err, f.open) || f.open == nil && (err != nil || !bytes.Equal(got, body)) {
		t.Errorf("read %d bytes, %v; want %v", len(got), err, f.open)
	}
	if hits+p.hits == 0 {
		t.Error("the fault hit nothing")
	}
}

// TestS3CredentialsExpire: credentials that are over are asked for again in the middle of the work.
func TestS3CredentialsExpire(t *testing.T) {
	g := artifacttest.StartGateway(t)
	cfg := g.AWS()
	const validity = 50 * time.Millisecond
	var mu sync.Mutex
	asked := 0
	valid := cfg.Credentials
	cfg.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		c, err := valid.Retrieve(ctx)
		c.CanExpire, c.Expires = true, time.Now().Add(validity)
		return c, err
	}))
	store, err := artifact.Open(t.Context(), "s3://bucket/p", artifact.Config{AWS: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := store.Put(t.Context(), "k", bytes.NewReader(make([]byte, 6<<20)), nil); err != nil {
			t.Fatal(err)
		}
		<-time.After(validity)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked < 3 {
		t.Errorf("asked %d times for credentials, want it for each upload", asked)
	}
}

// TestS3CredentialsRevoked: credentials that the store no longer takes, before the time that they name, fail an upload in
// its middle; the next try has new ones.
func TestS3CredentialsRevoked(t *testing.T) {
	g := artifacttest.StartGateway(t)
	p := newProxy(t, g)
	cfg := g.AWS()
	valid := cfg.Credentials
	var asked atomic.Int32
	cfg.Credentials = aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(ctx context.Context) (aws.Credentials, error) {
		c, err := valid.Retrieve(ctx)
		asked.Add(1)
		c.CanExpire, c.Expires = true, time.Now().Add(time.Hour)
		return c, err
	}))
	store := p.open(t, g, artifact.Config{AWS: &cfg})
	p.deny = func(r *http.Request) string {
		if asked.Load() == 1 && r.URL.Query().Get("partNumber") == "2" {
			return "ExpiredToken"
		}
		return ""
	}
	if _, err := store.Put(t.Context(), "k", bytes.NewReader(large), nil); !errors.Is(err, artifact.ErrUnavailable) || !strings.Contains(err.Error(), "ExpiredToken") {
		t.Errorf("got %v, want ErrUnavailable by ExpiredToken", err)
	}
	if _, err := store.Put(t.Context(), "k", bytes.NewReader(large), nil); err != nil || asked.Load() != 2 {
		t.Errorf("again: %v, asked %d times for credentials", err, asked.Load())
	}
}
