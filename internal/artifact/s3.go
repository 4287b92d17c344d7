package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager"
	tmtypes "github.com/aws/aws-sdk-go-v2/feature/s3/transfermanager/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

const (
	uploadParts  = 4                // in flight at a time
	abortTimeout = 10 * time.Second // for ending an upload after its context is cancelled
	deleteBatch  = 1000             // keys a request, S3's limit
)

// S3 is a Store in a bucket of S3 or of a server that speaks its protocol, below a prefix.
//
// Digests are ours, on both ways. The store's own checksums, CRC64NVME over the whole object where it knows that, guard
// an object besides: the store checks what it is sent, we check what it gives back, sources of others included. No method
// asks by HEAD, whose answer has no body: a missing bucket and an unknown access key then look like a missing object.
type S3 struct {
	space
	client  *s3.Client
	manager *transfermanager.Client
	bucket  string
	root    string // key prefix with a slash at its end, or empty
	sse     string // x-amz-server-side-encryption of what is written, or empty
	kmsKey  *string
	older   atomic.Bool // the store has refused CRC64NVME

	credentials *aws.CredentialsCache // nil: they cannot be asked for again
}

var _ Store = (*S3)(nil)

// newS3 returns the store below prefix (may be empty) in bucket.
func newS3(client *s3.Client, bucket, prefix string, cfg Config) (*S3, error) {
	prefix, err := checkPrefix(prefix)
	if err != nil {
		return nil, err
	}
	s := &S3{space: space{url.URL{Scheme: "s3", Host: bucket, Path: prefix}}, client: client, bucket: bucket, sse: cfg.SSE}
	if prefix != "" {
		s.root = prefix + "/"
	}
	if cfg.KMSKey != "" {
		s.kmsKey = &cfg.KMSKey
	}
	s.manager = transfermanager.New(client, func(o *transfermanager.Options) {
		o.Concurrency, o.FailTimeout = uploadParts, abortTimeout
		// Its own default would override what AWS_REQUEST_CHECKSUM_CALCULATION chose.
		o.RequestChecksumCalculation = client.Options().RequestChecksumCalculation
	})
	return s, nil
}

// Put implements Store: in parallel parts from 16 MiB on. An upload that fails is aborted, also after a cancellation.
func (s *S3) Put(ctx context.Context, key string, body io.ReadSeeker, progress Progress) (Ref, error) {
	if err := s.ready(ctx, "put", key); err != nil {
		return Ref{}, err
	}
	at, size, err := remaining(body)
	if err != nil {
		return Ref{}, fmt.Errorf("put %s: %w", s.uri(key), err)
	}
	input := &transfermanager.UploadObjectInput{Bucket: &s.bucket, Key: s.name(key), ContentLength: &size,
		ServerSideEncryption: tmtypes.ServerSideEncryption(s.sse), SSEKMSKeyID: s.kmsKey}
	var d *digester
	l := &listener{progress: progress}
	err = s.checksummed(func(sum types.ChecksumAlgorithm) error {
		d = newDigester(ctxReader{ctx, body}, nil)
		if _, d.err = body.Seek(at, io.SeekStart); d.err != nil {
			return d.err
		}
		input.Body, input.ChecksumAlgorithm = d, tmtypes.ChecksumAlgorithm(sum)
		_, err := s.manager.UploadObject(ctx, input, func(o *transfermanager.Options) {
			o.S3 = &partSums{Client: s.client}
			if progress != nil {
				o.ObjectProgressListeners.Register(l)
			}
		})
		return err
	})
	if d.err != nil && ctx.Err() == nil {
		return Ref{}, fmt.Errorf("put %s: read body: %w", s.uri(key), d.err)
	}
	if err != nil {
		if ctx.Err() != nil {
			s.abortLeft(ctx, key)
		}
		return Ref{}, s.failPut(ctx, key, err)
	}
	if d.n != size {
		return Ref{}, fmt.Errorf("put %s: body changed from %d to %d bytes: %w", s.uri(key), size, d.n, io.ErrUnexpectedEOF)
	}
	return d.ref(s.uri(key)), nil
}

// abortLeft ends an upload of key that outlived a cancellation: the answer that named it may be lost, and a part that was
// on its way can bring back what was aborted. No two writers share a key. What is left even so, a sweep finds.
func (s *S3) abortLeft(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, _ = s.AbortUploads(ctx, key)
}

// remaining is a body's current position and its length from there. It leaves the body at its end.
func remaining(body io.Seeker) (at, size int64, err error) {
	if at, err = body.Seek(0, io.SeekCurrent); err != nil {
		return 0, 0, err
	}
	end, err := body.Seek(0, io.SeekEnd)
	return at, end - at, err
}

// listener hands the parts that the store has acknowledged to a Progress, one call at a time and never backwards.
type listener struct {
	mu       sync.Mutex
	done     int64
	progress Progress
}

// OnObjectBytesTransferred is called by the uploading goroutines.
func (l *listener) OnObjectBytesTransferred(_ context.Context, e *transfermanager.ObjectBytesTransferredEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.BytesTransferred > l.done {
		l.done = e.BytesTransferred
		l.progress(l.done)
	}
}

// PutIfAbsent implements Store by a conditional PUT. A 412 can be the answer to the SDK's own second try, and a loser of
// a race may see another error altogether: what counts is what stands there then.
func (s *S3) PutIfAbsent(ctx context.Context, key string, body []byte) (Ref, error) {
	if err := s.ready(ctx, "put", key); err != nil {
		return Ref{}, err
	}
	err := s.checksummed(func(sum types.ChecksumAlgorithm) error {
		_, err := s.client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: &s.bucket, Key: s.name(key), Body: bytes.NewReader(body), IfNoneMatch: aws.String("*"), ChecksumAlgorithm: sum,
			ServerSideEncryption: types.ServerSideEncryption(s.sse), SSEKMSKeyId: s.kmsKey,
		})
		return err
	})
	if err == nil {
		return refOf(s.uri(key), body), nil
	}
	if lostRace(err) && ctx.Err() == nil {
		return compare(ctx, s, s.uri(key), key, body)
	}
	return Ref{}, s.failPut(ctx, key, err)
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, ref Ref) (io.ReadCloser, error) {
	key, err := s.key(ref)
	if err != nil {
		return nil, err
	}
	r, err := s.get(ctx, "open", key)
	if err != nil {
		return nil, err
	}
	if ref.Bytes > chunk {
		r = readAhead(r)
	}
	return Verify(r, ref), nil
}

// Get implements Store.
func (s *S3) Get(ctx context.Context, key string, limit int64) ([]byte, Ref, error) {
	r, err := s.get(ctx, "get", key)
	if err != nil {
		return nil, Ref{}, err
	}
	defer r.Close()
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, Ref{}, err
	}
	if int64(len(body)) > limit {
		return nil, Ref{}, tooLong("get", s.uri(key), limit)
	}
	return body, refOf(s.uri(key), body), nil
}

func (s *S3) get(ctx context.Context, op, key string) (io.ReadCloser, error) {
	if err := s.ready(ctx, op, key); err != nil {
		return nil, err
	}
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.bucket, Key: s.name(key)})
	if err != nil {
		return nil, s.fail(ctx, op, key, err)
	}
	return &objectBody{out.Body, func(err error) error {
		if failsChecksum(err) {
			return &Error{Op: op, URI: s.uri(key), Err: ErrCorrupt, Detail: err.Error()}
		}
		return s.fail(ctx, op, key, err)
	}}, nil
}

// objectBody classes the errors of a response's body.
type objectBody struct {
	io.ReadCloser
	fail func(error) error
}

// Read implements io.Reader.
func (b *objectBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = b.fail(err)
	}
	return n, err
}

// List implements Store.
func (s *S3) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		prefix, err := checkPrefix(prefix)
		if err == nil {
			err = interrupted(ctx, "list", s.uri(prefix))
		}
		if err != nil {
			yield(Info{}, err)
			return
		}
		if prefix == "" {
			s.pages(ctx, "", yield)
			return
		}
		any, goOn := s.pages(ctx, prefix+"/", yield)
		if !any && goOn {
			s.single(ctx, prefix, yield)
		}
	}
}

// pages yields what begins with prefix; it reports whether there was anything, errors included, and whether to go on.
func (s *S3) pages(ctx context.Context, prefix string, yield func(Info, error) bool) (any, goOn bool) {
	pager := s3.NewListObjectsV2Paginator(s.client, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.name(prefix)})
	for pager.HasMorePages() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			yield(Info{}, s.fail(ctx, "list", strings.TrimSuffix(prefix, "/"), err))
			return true, false
		}
		for _, o := range page.Contents {
			any = true
			if !yield(s.info(o), nil) {
				return any, false
			}
		}
	}
	return any, true
}

// single yields the object at key itself: of all that begin with its name it comes first.
func (s *S3) single(ctx context.Context, key string, yield func(Info, error) bool) {
	page, err := s.client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &s.bucket, Prefix: s.name(key), MaxKeys: aws.Int32(1)})
	if err != nil {
		yield(Info{}, s.fail(ctx, "list", key, err))
		return
	}
	if len(page.Contents) > 0 && s.info(page.Contents[0]).Key == key {
		yield(s.info(page.Contents[0]), nil)
	}
}

// nested returns an object that stands above or below key, or "".
func (s *S3) nested(ctx context.Context, key string) (found string) {
	take := func(info Info, err error) bool {
		if err == nil {
			found = info.Key
		}
		return false
	}
	s.pages(ctx, key+"/", take)
	for above := path.Dir(key); above != "." && found == ""; above = path.Dir(above) {
		s.single(ctx, above, take)
	}
	return found
}

func (s *S3) info(o types.Object) Info {
	return Info{Key: strings.TrimPrefix(aws.ToString(o.Key), s.root), Bytes: aws.ToInt64(o.Size)}
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, keys ...string) error {
	var objects []types.ObjectIdentifier
	for _, key := range keys {
		if err := s.ready(ctx, "delete", key); err != nil {
			return err
		}
		objects = append(objects, types.ObjectIdentifier{Key: s.name(key)})
	}
	for len(objects) > 0 {
		batch := objects[:min(deleteBatch, len(objects))]
		objects = objects[len(batch):]
		out, err := s.client.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: &s.bucket, Delete: &types.Delete{Objects: batch, Quiet: aws.Bool(true)},
		})
		if err != nil {
			return s.fail(ctx, "delete", strings.TrimPrefix(*batch[0].Key, s.root), err)
		}
		for _, e := range out.Errors {
			if code := aws.ToString(e.Code); code != codeNoSuchKey {
				return &Error{Op: "delete", URI: "s3://" + s.bucket + "/" + aws.ToString(e.Key), Err: kindOf(code, 0), Detail: code}
			}
		}
	}
	return nil
}

// AbortUploads implements Store.
func (s *S3) AbortUploads(ctx context.Context, prefix string) (int, error) {
	prefix, err := checkPrefix(prefix)
	if err == nil {
		err = interrupted(ctx, "abort uploads", s.uri(prefix))
	}
	if err != nil {
		return 0, err
	}
	n := 0
	pager := s3.NewListMultipartUploadsPaginator(s.client, &s3.ListMultipartUploadsInput{Bucket: &s.bucket, Prefix: s.name(prefix)})
	for pager.HasMorePages() {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return n, s.fail(ctx, "abort uploads", prefix, err)
		}
		for _, u := range page.Uploads {
			if !below(strings.TrimPrefix(aws.ToString(u.Key), s.root), prefix) {
				continue
			}
			_, err := s.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &s.bucket, Key: u.Key, UploadId: u.UploadId})
			if _, gone := errors.AsType[*types.NoSuchUpload](err); gone {
				continue
			}
			if err != nil {
				return n, s.fail(ctx, "abort uploads", prefix, err)
			}
			n++
		}
	}
	return n, nil
}

// Check implements Store.
func (s *S3) Check(ctx context.Context) error { return checkStore(ctx, s) }

// name is the whole key in the bucket.
func (s *S3) name(key string) *string { return aws.String(s.root + key) }

func (s *S3) ready(ctx context.Context, op, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(s.root)+len(key) > maxKey {
		return &Error{Op: op, URI: s.uri(key), Err: ErrInvalidKey, Detail: fmt.Sprintf("longer than %d bytes with the store's prefix", maxKey)}
	}
	return interrupted(ctx, op, s.uri(key))
}
