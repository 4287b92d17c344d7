package mlflow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// errDetached is what a transport gets that still reads the body of a request that was given up.
var errDetached = errors.New("body of an earlier attempt")

// meter counts what is read, tells progress, and keeps the watch alive. It is closed before its source is rewound:
// net/http may go on reading a body after it returned an error.
type meter struct {
	r        io.Reader
	alive    func()
	progress Progress

	mu     sync.Mutex
	closed bool
	done   int64
	err    error // of r, if not io.EOF
}

// Read implements io.Reader.
func (m *meter) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return 0, errDetached
	}
	n, err := m.r.Read(p)
	if m.done += int64(n); n > 0 {
		m.alive()
		if m.progress != nil {
			m.progress(m.done)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	return n, err
}

// Close ends all reading; it does not close the source.
func (m *meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// watch returns a context that ends when alive was not called for the configured time-out.
func (c *Client) watch(ctx context.Context) (watched context.Context, alive, cancel func()) {
	watched, stop := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.cfg.Timeout, func() { stop(errNoAnswer) })
	return watched, func() { timer.Reset(c.cfg.Timeout) }, func() { timer.Stop(); stop(nil) }
}

// put sends size bytes of body, from where it stands, with the given sender, repeating passing failures from there.
// It returns the reply's header.
func (c *Client) put(ctx context.Context, op, address string, header http.Header, body io.ReadSeeker, size int64, progress Progress,
	send func(op string, req *http.Request) (*http.Response, error),
) (http.Header, error) {
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, fmt.Errorf("mlflow %s: %w", op, err)
	}
	var reply http.Header
	err = c.retry(ctx, func(ctx context.Context) error {
		if _, err := body.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("mlflow %s: %w", op, err)
		}
		ctx, alive, cancel := c.watch(ctx)
		defer cancel()
		m := &meter{r: io.LimitReader(body, size), alive: alive, progress: progress}
		defer m.Close()
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, address, m)
		if err != nil {
			return invalid(op, "cannot build the request: %v", netError(err))
		}
		if req.ContentLength = size; size == 0 {
			req.Body = http.NoBody
		}
		for k := range header {
			req.Header.Set(k, header.Get(k))
		}
		resp, err := send(op, req)
		if err != nil {
			return m.sourceError(op, err)
		}
		defer resp.Body.Close()
		reply = resp.Header
		return nil
	})
	return reply, err
}

// sourceError tells a failure to read the body from one to send it: the former is not the server's.
func (m *meter) sourceError(op string, err error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return fmt.Errorf("mlflow %s: read: %w", op, m.err)
	}
	return err
}

// fetch opens a GET to the tracking server. The body lives as long as ctx.
func (c *Client) fetch(ctx context.Context, op, address string) (io.ReadCloser, int64, error) {
	var resp *http.Response
	err := c.retry(ctx, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return invalid(op, "cannot build the request: %v", netError(err))
		}
		resp, err = c.do(op, req) //nolint:bodyclose // the caller's
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// escapePath percent-escapes each segment.
func escapePath(p string) string {
	segments := strings.Split(p, "/")
	for i, s := range segments {
		segments[i] = url.PathEscape(s)
	}
	return strings.Join(segments, "/")
}
