package artifact

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	smithy "github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Error codes on the wire; the latter two are of servers that keep objects as files.
const (
	codeNoSuchKey    = "NoSuchKey"
	codeIsDirectory  = "ExistingObjectIsDirectory"
	codeParentIsFile = "ObjectParentIsFile"
)

// fail classes an error of the SDK.
func (s *S3) fail(ctx context.Context, op, key string, err error) error {
	if ctxErr := interrupted(ctx, op, s.uri(key)); ctxErr != nil {
		return ctxErr
	}
	code, status, detail := describe(err)
	if expired(code) && s.credentials != nil {
		s.credentials.Invalidate() // whatever they say about their end
	}
	return &Error{Op: op, URI: s.uri(key), Err: kindOf(code, status), Detail: detail}
}

// failPut looks closer at the complaint that a key has another object above or below it: versitygw gives it for every
// failure to make a folder or a link, also when a delete beside us has just removed the folder.
func (s *S3) failPut(ctx context.Context, key string, err error) error {
	failed := s.fail(ctx, "put", key, err)
	e, ok := errors.AsType[*Error](failed)
	if code, _, _ := describe(err); ok && (code == codeIsDirectory || code == codeParentIsFile) {
		if other := s.nested(ctx, key); other != "" {
			e.Err, e.Detail = ErrInvalidKey, fmt.Sprintf("%q exists", other)
		}
	}
	return failed
}

// describe takes from an error what may be told: the server's code and message, or the network's complaint, but no URL.
func describe(err error) (code string, status int, detail string) {
	if response, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		status = response.HTTPStatusCode()
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode(), status, fmt.Sprintf("%s (%d): %s", api.ErrorCode(), status, api.ErrorMessage())
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		return "", status, request.Err.Error()
	}
	return "", status, err.Error()
}

// kindOf sorts by the server's code first: a status alone misleads, since an unknown access key is a 404 to some
// servers, and so is a missing bucket.
func kindOf(code string, status int) error {
	if expired(code) {
		return ErrUnavailable // the next try has new credentials
	}
	switch code {
	case codeNoSuchKey:
		return ErrNotFound
	case "KeyTooLongError", "KeyTooLong":
		return ErrInvalidKey
	case "BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "RequestTimeout", "IncompleteBody",
		"ConditionalRequestConflict", "OperationAborted", "NoSuchUpload", codeIsDirectory, codeParentIsFile:
		return ErrUnavailable // damaged or overtaken on the way: another try may fare better
	case "AccessDenied", "NotImplemented":
		return ErrDenied
	}
	if status >= 300 && status < 500 && status != http.StatusTooManyRequests && status != http.StatusRequestTimeout {
		return ErrDenied
	}
	return ErrUnavailable
}

// expired reports that a request's credentials were no longer good.
func expired(code string) bool {
	return code == "ExpiredToken" || code == "RequestExpired" || code == "TokenRefreshRequired"
}

// lostRace reports that a conditional write met an object, or another conditional write.
func lostRace(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && (api.ErrorCode() == "PreconditionFailed" || api.ErrorCode() == "ConditionalRequestConflict")
}
