package artifact

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Config is what [Open] needs besides the URI.
type Config struct {
	// AWS holds credentials, region and endpoint for s3 stores; nil loads them from the environment and the shared
	// files, as every AWS client does.
	AWS *aws.Config
	// PathStyle puts the bucket into the path instead of the host name. It is implied by a custom endpoint
	// (AWS_ENDPOINT_URL_S3).
	PathStyle bool
}

// Open returns the store at s3://bucket/prefix, file:///folder or mem:. It does not call the store: [Store.Check] does.
func Open(ctx context.Context, uri string, cfg Config) (Store, error) {
	u, err := url.Parse(uri)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, badURI(uri, "want s3://bucket/prefix, file:///folder or mem:, without user info and query")
	}
	switch {
	case u.Scheme == "s3" && u.Host != "":
		return openS3(ctx, u.Host, strings.Trim(u.Path, "/"), cfg)
	case u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return NewDir(u.Path)
	case uri == "mem:":
		return NewMem(), nil
	}
	return nil, badURI(uri, "want s3://bucket/prefix, file:///folder or mem:")
}

func badURI(uri, detail string) error {
	return &Error{Op: "open store", URI: plain(uri), Err: ErrInvalidKey, Detail: detail}
}

// An outage of seconds is waited out here, a longer one by the activity's retry policy, which frees the slot meanwhile.
const (
	maxAttempts = 4
	maxBackoff  = 2 * time.Second
	dialTimeout = 5 * time.Second
	idleTimeout = time.Minute // without a byte in either direction
)

func openS3(ctx context.Context, bucket, prefix string, cfg Config) (Store, error) {
	base := cfg.AWS
	if base == nil {
		loaded, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return nil, fmt.Errorf("open store s3://%s: %w", bucket, err)
		}
		base = &loaded
	}
	client := s3.NewFromConfig(*base, func(o *s3.Options) {
		o.UsePathStyle = cfg.PathStyle || o.BaseEndpoint != nil
		o.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			t.DialContext = dialIdle(&net.Dialer{Timeout: dialTimeout}, idleTimeout)
			t.MaxIdleConnsPerHost = 4 * uploadParts
		})
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff
			o.RateLimiter = ratelimit.None // the default one remembers an outage and then refuses later calls
		})
		// Every object has our own digest; without this, each read would log that its checksum is not validated.
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		o.DisableLogOutputChecksumValidationSkipped = true
	})
	return NewS3(client, bucket, prefix)
}

// dialIdle gives connections a deadline that every byte in either direction renews, so that a peer that went silent
// is noticed, but a slow one is waited for.
func dialIdle(d *net.Dialer, idle time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &idleConn{conn, idle}, nil
	}
}

type idleConn struct {
	net.Conn
	idle time.Duration
}

// Read implements net.Conn.
func (c *idleConn) Read(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn. It renews the pending Read's deadline as well, which waits for the answer to all of this.
func (c *idleConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.idle)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
