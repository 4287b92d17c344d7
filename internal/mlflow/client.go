package mlflow

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	api        = "api/2.0/mlflow/"
	maxBody    = 64 << 20 // bytes of a JSON reply
	firstWait  = 100 * time.Millisecond
	waitFactor = 4
	waitBudget = 2 * time.Second // a longer Retry-After is handed to the caller
)

// errNoAnswer is the cause of a request's own time-out; it is not the caller's deadline.
var errNoAnswer = errors.New("no answer within the time-out")

// Client is a connection to one server. Its methods may be called concurrently.
type Client struct {
	cfg   Config
	base  *url.URL
	http  *http.Client // to the tracking server
	cloud *http.Client // to presigned URLs: the tracking server's TLS settings do not hold there

	info serverInfo
	s3   s3State

	multipartFrom int64 // bytes; multipartMin but in tests
}

// New returns a client. Nothing is sent.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.TrackingURI)
	if err != nil || base.Host == "" {
		return nil, errors.New("mlflow: tracking URI: want http(s)://host[:port][/prefix]")
	}
	tlsConfig, err := cfg.tls()
	if err != nil {
		return nil, fmt.Errorf("mlflow: %w", err)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	return &Client{
		cfg:           cfg,
		base:          base,
		http:          newHTTP(tlsConfig),
		cloud:         newHTTP(&tls.Config{InsecureSkipVerify: cfg.S3.InsecureTLS}), //nolint:gosec // the user's own setting
		multipartFrom: multipartMin,
	}, nil
}

// TrackingURI returns the server's address, without user info.
func (c *Client) TrackingURI() string { return c.cfg.TrackingURI }

// newHTTP follows redirects of reads only: net/http turns a redirected POST into a GET.
func newHTTP(tlsConfig *tls.Config) *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = tlsConfig
	t.MaxIdleConnsPerHost = 8
	return &http.Client{
		Transport: t,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if via[0].Method != http.MethodGet || len(via) >= 5 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
}

// tls builds the tracking server's TLS settings.
func (c Config) tls() (*tls.Config, error) {
	t := &tls.Config{InsecureSkipVerify: c.InsecureTLS} //nolint:gosec // the user's own setting
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_TRACKING_SERVER_CERT_PATH: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("MLFLOW_TRACKING_SERVER_CERT_PATH: no certificate in %s", c.CAFile)
		}
	}
	if c.ClientCertFile != "" {
		cert, err := tls.LoadX509KeyPair(c.ClientCertFile, c.ClientCertFile)
		if err != nil {
			return nil, fmt.Errorf("MLFLOW_TRACKING_CLIENT_CERT_PATH: %w", err)
		}
		t.Certificates = []tls.Certificate{cert}
	}
	return t, nil
}

// retry repeats op while it fails for a passing reason, within MaxRetries and about two seconds of waiting.
func (c *Client) retry(ctx context.Context, op func(context.Context) error) error {
	wait := firstWait
	for attempt := 0; ; attempt++ {
		err := op(ctx)
		var e *Error
		if err == nil || attempt >= c.cfg.MaxRetries || !errors.As(err, &e) || !e.Retryable() || e.RetryAfter > waitBudget {
			return err
		}
		// Half of the wait is random, so that workers that failed together do not come back together.
		pause := max(e.RetryAfter, wait/2+rand.N(wait/2)) //nolint:gosec // jitter
		wait *= waitFactor
		select {
		case <-ctx.Done():
			return fmt.Errorf("mlflow %s: %w", e.Op, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// get reads api/2.0/mlflow/<call>, repeating passing failures.
func (c *Client) get(ctx context.Context, call string, query url.Values, out any) error {
	return c.retry(ctx, func(ctx context.Context) error { return c.once(ctx, http.MethodGet, call, query, nil, out) })
}

// send repeats passing failures; only for calls that a server may see twice.
func (c *Client) send(ctx context.Context, method, call string, in, out any) error {
	return c.retry(ctx, func(ctx context.Context) error { return c.once(ctx, method, call, nil, in, out) })
}

// once makes one JSON call. call is relative to api/2.0/mlflow/, or begins with api/.
func (c *Client) once(ctx context.Context, method, call string, query url.Values, in, out any) error {
	path := call
	if !strings.HasPrefix(path, "api/") {
		path = api + path
	}
	return c.onceAt(ctx, call, method, c.url(path, query), in, out)
}

// onceAt makes one JSON call to a whole address.
func (c *Client) onceAt(ctx context.Context, op, method, address string, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, errNoAnswer)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return invalid(op, "cannot encode the request: %v", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, body)
	if err != nil {
		return invalid(op, "cannot build the request: %v", netError(err))
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json") // MLflow refuses a body without it
	}
	resp, err := c.do(op, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return c.netFailure(op, req, err)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		// A proxy's log-in page, or a server that is no MLflow.
		return &Error{Op: op, URL: safeURL(req.URL), Status: http.StatusNotImplemented, Message: "the reply is not the JSON of MLflow: " + scrub(string(data))}
	}
	return nil
}

// url joins the tracking URI (its path prefix kept) with an escaped path.
func (c *Client) url(path string, query url.Values) string {
	s := strings.TrimRight(c.base.String(), "/") + "/" + path
	if len(query) > 0 {
		s += "?" + query.Encode()
	}
	return s
}

// do sends a request to the tracking server and turns every status but 2xx into an *Error.
func (c *Client) do(op string, req *http.Request) (*http.Response, error) {
	// Credentials go to the tracking server only: an artifact URI may name another host, and whoever makes an
	// experiment chooses its artifact URI.
	if req.URL.Host == c.base.Host && req.URL.Scheme == c.base.Scheme {
		switch {
		case c.cfg.Username != "":
			req.SetBasicAuth(c.cfg.Username, c.cfg.Password.Reveal())
		case !c.cfg.Token.IsZero():
			req.Header.Set("Authorization", "Bearer "+c.cfg.Token.Reveal())
		}
	}
	if c.cfg.Workspace != "" {
		req.Header.Set("X-MLFLOW-WORKSPACE", c.cfg.Workspace)
	}
	req.Header.Set("User-Agent", "duratune")
	return c.roundTrip(c.http, op, req)
}

// roundTrip sends req as it is.
func (c *Client) roundTrip(client *http.Client, op string, req *http.Request) (*http.Response, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, c.netFailure(op, req, err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, statusError(op, resp)
}

// netFailure classes an error of a request that got no whole reply.
func (c *Client) netFailure(op string, req *http.Request, err error) error {
	if ctx := req.Context(); ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer) {
		return fmt.Errorf("mlflow %s: %w", op, ctx.Err())
	} else if ctx.Err() != nil {
		err = fmt.Errorf("%w (%s)", errNoAnswer, c.cfg.Timeout)
	}
	return &Error{Op: op, URL: safeURL(req.URL), Err: netError(err)}
}

// statusError reads MLflow's error body: JSON, plain text (401, 403) or HTML (unknown route, a crash).
func statusError(op string, resp *http.Response) *Error {
	e := &Error{Op: op, URL: safeURL(resp.Request.URL), Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header)}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // a cut body still has its status
	var mlflow struct {
		Code    string `json:"error_code"`
		Message string `json:"message"`
	}
	switch text := string(body); {
	case json.Unmarshal(body, &mlflow) == nil && mlflow.Code != "":
		e.Code, e.Message = mlflow.Code, scrub(mlflow.Message)
	case strings.Contains(text, "--no-serve-artifacts"):
		e.Code = codeNotServed
	case strings.Contains(text, "Invalid Host header"):
		e.Code = codeHostRejected
	case !strings.HasPrefix(strings.TrimSpace(text), "<"):
		e.Message = scrub(text)
	}
	return e
}

// retryAfter reads the header's seconds or date.
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil && s > 0 {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(t))
	}
	return 0
}

// serverInfo caches the server's capabilities.
type serverInfo struct {
	mu    sync.Mutex
	known bool
	capabilities
}

// capabilities is api/3.0/mlflow/server-info; all false on servers that lack it.
type capabilities struct {
	MultipartUploads bool `json:"multipart_uploads_enabled"`
	PresignedOnly    bool `json:"artifacts_presigned_only"`
	PresignedUpload  bool `json:"presigned_upload_model_id_supported"`
}

// serverInfo asks once and remembers the answer.
func (c *Client) serverInfo(ctx context.Context) (capabilities, error) {
	c.info.mu.Lock()
	defer c.info.mu.Unlock()
	if c.info.known {
		return c.info.capabilities, nil
	}
	err := c.get(ctx, "api/3.0/mlflow/server-info", nil, &c.info.capabilities)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return capabilities{}, err
	}
	c.info.known = true
	return c.info.capabilities, nil
}

// CheckHealth proves that the server is an MLflow 3 that accepts the credentials, and returns its version.
func (c *Client) CheckHealth(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, errNoAnswer)
	defer cancel()
	body, _, err := c.fetch(ctx, "version", c.url("version", nil))
	if err != nil {
		return "", err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, 1<<10))
	if err != nil {
		return "", &Error{Op: "version", URL: safeURL(c.base), Err: netError(err)}
	}
	version := strings.TrimSpace(string(b))
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < 3 {
		return "", invalid("version", "%s is not an MLflow server of version 3 or later: it says %q", c.cfg.TrackingURI, scrub(version))
	}
	// /version may be open where the API is not.
	q := url.Values{"max_results": {"1"}}
	return version, c.get(ctx, "experiments/search", q, nil)
}
