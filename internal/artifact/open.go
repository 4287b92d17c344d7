package artifact

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
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
	// Addressing is "path" to put the bucket into the path of a request, or "virtual" to put it into the host name;
	// empty means virtual at AWS and path at a custom endpoint (AWS_ENDPOINT_URL_S3).
	Addressing string
	// SSE is what the store shall encrypt objects with, as in x-amz-server-side-encryption: "AES256", "aws:kms" or
	// "aws:kms:dsse"; empty leaves it to the bucket.
	SSE string
	// KMSKey is the id or the ARN of the key for aws:kms; empty means the account's own.
	KMSKey string
}

// ConfigFromEnv reads what the AWS SDK has no variables for, for s3 stores:
//
//	DURATUNE_S3_ADDRESSING      path or virtual
//	DURATUNE_S3_SSE             AES256, aws:kms or aws:kms:dsse
//	DURATUNE_S3_SSE_KMS_KEY_ID  id or ARN of the key for aws:kms
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	const addressing, sse, key = "DURATUNE_S3_ADDRESSING", "DURATUNE_S3_SSE", "DURATUNE_S3_SSE_KMS_KEY_ID"
	c := Config{Addressing: getenv(addressing), SSE: getenv(sse), KMSKey: getenv(key)}
	if !slices.Contains([]string{"", pathStyle, virtualStyle}, c.Addressing) {
		return Config{}, fmt.Errorf("%s: got %q, want path or virtual", addressing, c.Addressing)
	}
	if !slices.Contains([]string{"", "AES256", "aws:kms", "aws:kms:dsse"}, c.SSE) {
		return Config{}, fmt.Errorf("%s: got %q, want AES256, aws:kms or aws:kms:dsse", sse, c.SSE)
	}
	if c.KMSKey != "" && !strings.HasPrefix(c.SSE, "aws:kms") {
		return Config{}, fmt.Errorf("%s is set, but %s is %q: only aws:kms takes a key", key, sse, c.SSE)
	}
	return c, nil
}

// Values of Config.Addressing.
const (
	pathStyle    = "path"
	virtualStyle = "virtual"
)

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
		o.UsePathStyle = cfg.Addressing == pathStyle || cfg.Addressing == "" && o.BaseEndpoint != nil
		if c, ok := o.HTTPClient.(*awshttp.BuildableClient); ok { // with the certificates of AWS_CA_BUNDLE
			o.HTTPClient = c.WithTransportOptions(func(t *http.Transport) {
				t.DialContext = dialIdle(t.DialContext)
				t.MaxIdleConnsPerHost = 4 * uploadParts
			})
		}
		o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff
			o.RateLimiter = ratelimit.None // the default one remembers an outage and then refuses later calls
		})
		if o.ResponseChecksumValidation == aws.ResponseChecksumValidationUnset { // in a Config.AWS made by hand
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenSupported
		}
		o.DisableLogOutputChecksumValidationSkipped = true // said at every read of an object without a checksum
	})
	s, err := newS3(client, bucket, prefix, cfg)
	if err != nil {
		return nil, err
	}
	s.credentials, _ = base.Credentials.(*aws.CredentialsCache) // as LoadDefaultConfig makes it
	return s, nil
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// dialIdle gives connections a deadline that every byte in either direction renews, so that a peer that went silent
// is noticed, but a slow one is waited for.
func dialIdle(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &idleConn{conn, idleTimeout}, nil
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
