package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxTries  = 6                // in a row without a byte of progress
	maxWait   = 30 * time.Second // a longer wait is the caller's: its error says how long
	userAgent = "duratune"
)

// Client reads repositories of one hub into one cache. It is safe for concurrent use, also of several processes.
type Client struct {
	cfg   Config
	guard *guard
	http  *http.Client

	wait  func(context.Context, time.Duration) error // sleeps; tests replace it
	stall time.Duration                              // a transfer without a byte for so long is cut and resumed
}

// New returns a client; it does not connect.
func New(cfg Config) *Client {
	if cfg.Endpoint == nil {
		cfg.Endpoint = &url.URL{Scheme: "https", Host: "huggingface.co"}
	}
	g := newGuard(cfg)
	return &Client{cfg: cfg, guard: g, http: g.client(), wait: sleep, stall: time.Minute}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// url builds a URL on the endpoint; each segment is escaped, so a revision with slashes is one segment, as the hub
// wants it.
func (c *Client) url(query string, segments ...string) string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(c.cfg.Endpoint.String(), "/"))
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	if query != "" {
		b.WriteString("?" + query)
	}
	return b.String()
}

// get sends one GET. A status outside 2xx is an error; at is where the error is said to have happened.
func (c *Client) get(ctx context.Context, at Error, address string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, at.with(ErrInvalid, scrub(err.Error()))
	}
	for k, v := range header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", userAgent)
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.cfg.Token))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, at.transport(ctx, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
		return nil, c.refusal(at, resp)
	}
	return resp, nil
}

// with returns the error at the same place with a kind and a detail.
func (e Error) with(kind error, detail string) *Error {
	e.Kind, e.Detail = kind, detail
	return &e
}

// transport classifies what http.Client.Do or a body's Read returned.
func (e Error) transport(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if own := (*Error)(nil); errors.As(err, &own) { // from the guard
		return e.with(own.Kind, own.Op+": "+own.Detail)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the URL
	}
	return e.with(ErrUnavailable, scrub(err.Error()))
}

// refusal turns an answer outside 2xx into an error, by the headers that the hub explains itself with.
func (c *Client) refusal(at Error, resp *http.Response) *Error {
	code, message := resp.Header.Get("X-Error-Code"), resp.Header.Get("X-Error-Message")
	status := resp.StatusCode
	said := "HTTP " + strconv.Itoa(status)
	if message != "" {
		said += fmt.Sprintf(" %.200q", scrub(message))
	}
	page := strings.TrimRight(c.cfg.Endpoint.String(), "/") + "/" + at.Repo
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status == http.StatusTooEarly, status >= 500:
		e := at.with(ErrUnavailable, said)
		e.RetryAfter = retryAfter(resp.Header, time.Now())
		return e
	case !c.guard.isEndpoint(resp.Request.URL):
		// A storage host refuses a signed URL that has expired or is not for it; the hub hands out a fresh one.
		return at.with(ErrUnavailable, said+" from storage host "+resp.Request.URL.Host)
	case code == "EntryNotFound":
		return at.with(ErrNotFound, "the revision has no such file")
	case code == "RevisionNotFound":
		return at.with(ErrNotFound, "the repository has no such revision")
	case code == "GatedRepo":
		return at.with(ErrDenied, "the repository is gated; accept its terms at "+page+" and set HF_TOKEN to a token of that account")
	case status == http.StatusUnauthorized && c.cfg.Token != "":
		return at.with(ErrDenied, said+": the hub does not accept HF_TOKEN")
	case code == "RepoNotFound", status == http.StatusUnauthorized:
		return at.with(ErrNotFound, "the repository does not exist, or is private; check its name, and set HF_TOKEN if it is private")
	case status == http.StatusForbidden:
		return at.with(ErrDenied, said+": HF_TOKEN gives no access to the repository; see "+page)
	case status == http.StatusNotFound:
		return at.with(ErrNotFound, said)
	case status == http.StatusRequestedRangeNotSatisfiable:
		return at.with(errRange, said)
	}
	return at.with(ErrDenied, said)
}

// errRange is a 416: the partial file does not fit what the server has.
var errRange = errors.New("range not satisfiable")

var rateLimitRE = regexp.MustCompile(`;\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,6})`)

// retryAfter reads Retry-After (seconds or a date) or, without it, the reset time of a RateLimit header.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		if m := rateLimitRE.FindStringSubmatch(h.Get("RateLimit")); m != nil {
			v = m[1]
		}
	}
	if s, err := strconv.Atoi(v); err == nil && s >= 0 {
		return min(time.Duration(s)*time.Second, 24*time.Hour)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}

// retry calls try until it succeeds, fails for a lasting reason, or has failed maxTries times without progress.
func (c *Client) retry(ctx context.Context, try func() (progress bool, err error)) error {
	for failures := 0; ; {
		progress, err := try()
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return err
		}
		if progress {
			failures = 0
		}
		failures++
		delay := backoff(failures)
		if e := (*Error)(nil); errors.As(err, &e) && e.RetryAfter > 0 {
			delay = e.RetryAfter
		}
		if failures >= maxTries || delay > maxWait {
			return err
		}
		slog.WarnContext(ctx, "hub: trying again", "error", err, "in", delay)
		if err := c.wait(ctx, delay); err != nil {
			return err
		}
	}
}

// backoff is 0.5 s, doubled with each failure up to 8 s, and spread by a quarter.
func backoff(failures int) time.Duration {
	d := min(500*time.Millisecond<<(failures-1), 8*time.Second)
	return d + time.Duration(rand.Int64N(int64(d)/4))
}
