package mlflow

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// credentialWait bounds the search for credentials; the chain's last stop is a metadata service that may not exist.
const credentialWait = 5 * time.Second

// s3State makes the S3 client at its first use and keeps it.
type s3State struct {
	mu     sync.Mutex
	client *s3.Client
}

// get returns the client, or an error if the AWS chain resolves no credentials.
func (s *s3State) get(ctx context.Context, cfg Config) (*s3.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	ctx, cancel := context.WithTimeout(ctx, credentialWait)
	defer cancel()
	httpClient := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		if cfg.S3.InsecureTLS {
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // the user's own setting
		}
	})
	ac, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(httpClient), config.WithDefaultRegion("us-east-1"))
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if _, err := ac.Credentials.Retrieve(ctx); err != nil {
		return nil, fmt.Errorf("AWS credentials: %w", err)
	}
	s.client = s3.NewFromConfig(ac, func(o *s3.Options) {
		o.UsePathStyle = cfg.S3.PathStyle
		o.DisableLogOutputChecksumValidationSkipped = true // said at every download of a multipart object
		if cfg.S3.Endpoint != "" {
			o.BaseEndpoint = aws.String(cfg.S3.Endpoint)
		}
	})
	return s.client, nil
}

// s3Store reaches s3:// URIs directly.
type s3Store struct {
	c      *Client
	s3     *s3.Client
	bucket string
	root   string // key prefix, without slashes at its ends
}

func (s *s3Store) owner() *string {
	if s.c.cfg.S3.ExpectedOwner == "" {
		return nil
	}
	return aws.String(s.c.cfg.S3.ExpectedOwner)
}

func (s *s3Store) upload(ctx context.Context, rel string, body io.ReadSeeker, size int64, progress Progress) error {
	op := "upload " + rel
	start, err := body.Seek(0, io.SeekCurrent)
	if err != nil {
		return fmt.Errorf("mlflow %s: %w", op, err)
	}
	return s.c.retry(ctx, func(ctx context.Context) error {
		if _, err := body.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("mlflow %s: %w", op, err)
		}
		ctx, alive, cancel := s.c.watch(ctx)
		defer cancel()
		m := &meter{r: io.LimitReader(body, size), alive: alive}
		in := s.input(rel)
		in.Body = m
		sent := &sentBytes{alive: alive, progress: progress}
		_, err := transfermanager.New(s.s3, func(o *transfermanager.Options) {
			// Its own default would override what AWS_REQUEST_CHECKSUM_CALCULATION chose.
			o.RequestChecksumCalculation = s.s3.Options().RequestChecksumCalculation
			o.ObjectProgressListeners.Register(sent)
		}).UploadObject(ctx, in)
		if err == nil && m.done != size {
			return fmt.Errorf("mlflow %s: read: %w: %d of %d bytes", op, io.ErrUnexpectedEOF, m.done, size)
		}
		return m.sourceError(op, s.fail(ctx, op, rel, err))
	})
}

// input names the object and applies MLFLOW_S3_UPLOAD_EXTRA_ARGS.
func (s *s3Store) input(rel string) *transfermanager.UploadObjectInput {
	args := s.c.cfg.S3.UploadArgs
	in := &transfermanager.UploadObjectInput{
		Bucket:               aws.String(s.bucket),
		Key:                  aws.String(path.Join(s.root, rel)),
		ExpectedBucketOwner:  s.owner(),
		ACL:                  tmtypes.ObjectCannedACL(args["ACL"]),
		ServerSideEncryption: tmtypes.ServerSideEncryption(args["ServerSideEncryption"]),
		StorageClass:         tmtypes.StorageClass(args["StorageClass"]),
	}
	if key := args["SSEKMSKeyId"]; key != "" {
		in.SSEKMSKeyID = aws.String(key)
	}
	return in
}

// sentBytes turns the transfer manager's events, which come from several goroutines, into Progress.
type sentBytes struct {
	alive    func()
	progress Progress

	mu   sync.Mutex
	done int64
}

// OnObjectBytesTransferred is called when a part has been sent.
func (s *sentBytes) OnObjectBytesTransferred(_ context.Context, e *transfermanager.ObjectBytesTransferredEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alive()
	if s.done = max(s.done, e.BytesTransferred); s.progress != nil {
		s.progress(s.done)
	}
}

func (s *s3Store) open(ctx context.Context, rel string) (io.ReadCloser, int64, error) {
	op := "download " + rel
	out, err := s.s3.GetObject(ctx, &s3.GetObjectInput{
		Bucket: aws.String(s.bucket), Key: aws.String(path.Join(s.root, rel)), ExpectedBucketOwner: s.owner(),
	})
	if err != nil {
		return nil, 0, s.fail(ctx, op, rel, err)
	}
	return out.Body, aws.ToInt64(out.ContentLength), nil
}

// list returns everything below dir at once: S3 has no directories to walk.
func (s *s3Store) list(ctx context.Context, dir string) ([]File, []string, error) {
	prefix := path.Join(s.root, dir)
	if prefix != "" {
		prefix += "/"
	}
	pages := s3.NewListObjectsV2Paginator(s.s3, &s3.ListObjectsV2Input{
		Bucket: aws.String(s.bucket), Prefix: aws.String(prefix), ExpectedBucketOwner: s.owner(),
	})
	var files []File
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, nil, s.fail(ctx, "list "+dir, dir, err)
		}
		for _, o := range page.Contents {
			// Markers of empty folders end in a slash.
			if rel := path.Join(dir, strings.TrimPrefix(aws.ToString(o.Key), prefix)); cleanRel(rel) && !strings.HasSuffix(aws.ToString(o.Key), "/") {
				files = append(files, File{rel, aws.ToInt64(o.Size)})
			}
		}
	}
	return files, nil, nil
}

// fail turns the SDK's error into an *Error; nil stays nil.
func (s *s3Store) fail(ctx context.Context, op, rel string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errNoAnswer) {
		return fmt.Errorf("mlflow %s: %w", op, ctx.Err())
	}
	e := &Error{Op: op, URL: "s3://" + path.Join(s.bucket, s.root, rel)}
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		e.Status = re.HTTPStatusCode()
	}
	var ae smithy.APIError
	switch {
	case errors.As(err, &ae):
		e.Code, e.Message = ae.ErrorCode(), scrub(ae.ErrorMessage())
		if e.Code == "NoSuchKey" || e.Code == "NotFound" {
			e.Code = codeNotFound
		}
	default:
		e.Err = errors.New(scrub(netError(err).Error()))
	}
	return e
}
