package artifact

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// checksummed runs an upload with the checksum that its requests shall carry: CRC64NVME, which S3 keeps for an object as
// a whole however it was uploaded; CRC32, which every SDK sends, once a store has refused that; and none at all where
// AWS_REQUEST_CHECKSUM_CALCULATION is when_required, for stores that know none.
func (s *S3) checksummed(upload func(types.ChecksumAlgorithm) error) error {
	if s.client.Options().RequestChecksumCalculation == aws.RequestChecksumCalculationWhenRequired {
		return upload("")
	}
	if s.older.Load() {
		return upload(types.ChecksumAlgorithmCrc32)
	}
	refused := upload(types.ChecksumAlgorithmCrc64nvme)
	if !refusesRequest(refused) {
		return refused
	}
	err := upload(types.ChecksumAlgorithmCrc32)
	if (err == nil || lostRace(err)) && s.older.CompareAndSwap(false, true) {
		_, _, why := describe(refused)
		slog.Warn("the store does not take CRC64NVME: uploads carry CRC32, and our own SHA-256 as always", "store", s.uri(""), "why", why)
	}
	return err
}

// refusesRequest reports that a store did not understand a request, which may be for its checksum's sake.
func refusesRequest(err error) bool {
	if err == nil {
		return false
	}
	code, status, _ := describe(err)
	return (status == http.StatusBadRequest || status == http.StatusNotImplemented) && errors.Is(kindOf(code, status), ErrDenied)
}

// failsChecksum reports that a body did not have the checksum that the store gave with it. The SDK's error has no
// exported type.
func failsChecksum(err error) bool { return strings.HasPrefix(err.Error(), "checksum did not match") }

// partSums tells the store at the end of an upload what each part's CRC64NVME is, as it tells the store the other
// checksums: the transfer manager forgets this one (v0.5.7), and the store then refuses the upload.
type partSums struct {
	*s3.Client
	mu   sync.Mutex
	sums map[int32]*string // by part number
}

// UploadPart implements transfermanager.S3APIClient.
func (c *partSums) UploadPart(ctx context.Context, in *s3.UploadPartInput, o ...func(*s3.Options)) (*s3.UploadPartOutput, error) {
	out, err := c.Client.UploadPart(ctx, in, o...)
	if err == nil && out.ChecksumCRC64NVME != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.sums == nil {
			c.sums = map[int32]*string{}
		}
		c.sums[aws.ToInt32(in.PartNumber)] = out.ChecksumCRC64NVME
	}
	return out, err
}

// CompleteMultipartUpload implements transfermanager.S3APIClient.
func (c *partSums) CompleteMultipartUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput, o ...func(*s3.Options)) (*s3.CompleteMultipartUploadOutput, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if in.MultipartUpload != nil {
		for i := range in.MultipartUpload.Parts {
			part := &in.MultipartUpload.Parts[i]
			part.ChecksumCRC64NVME = c.sums[aws.ToInt32(part.PartNumber)]
		}
	}
	return c.Client.CompleteMultipartUpload(ctx, in, o...)
}
