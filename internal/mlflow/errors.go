package mlflow

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Classes of failure; test with [errors.Is].
var (
	// ErrUnavailable says that the server could not be reached or failed for a passing reason; retrying may help.
	ErrUnavailable = errors.New("mlflow unavailable")
	// ErrRejected says that the server understood and refused; retrying the same request does not help.
	ErrRejected = errors.New("mlflow rejected the request")
	// ErrNotFound says that what was asked for does not exist; it is also ErrRejected.
	ErrNotFound = errors.New("not found in mlflow")
)

// Error codes of MLflow's JSON bodies that this package acts on.
const (
	codeExists       = "RESOURCE_ALREADY_EXISTS"
	codeNotFound     = "RESOURCE_DOES_NOT_EXIST"
	codeInvalid      = "INVALID_PARAMETER_VALUE"
	codeBadRequest   = "BAD_REQUEST"
	codeDenied       = "PERMISSION_DENIED"
	codeNotServed    = "ARTIFACTS_NOT_SERVED" // ours: 503 from a server started with --no-serve-artifacts
	codeHostRejected = "HOST_REJECTED"        // ours: 403 "Invalid Host header"
)

// maxMessage bounds, in bytes, what is kept of a server's message; tracebacks and HTML pages are long.
const maxMessage = 500

// Error is a failed request.
type Error struct {
	Op         string        // the call, e.g. "runs/create" or "upload model/config.json"
	URL        string        // scheme, host and path; never user info or query
	Status     int           // HTTP status; 0 where there was no reply
	Code       string        // MLflow's error_code, "" where the body had none
	Message    string        // the server's message, shortened
	RetryAfter time.Duration // as the server asked; 0 where it did not
	Err        error         // the failure below, where there was no reply
}

// Error names call, place, status and the server's words, and what to do where that is known.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mlflow %s", e.Op)
	if e.URL != "" {
		fmt.Fprintf(&b, " at %s", e.URL)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": status %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, " %s", e.Code)
	}
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	if h := e.hint(); h != "" {
		fmt.Fprintf(&b, " (%s)", h)
	}
	return b.String()
}

// Unwrap returns the failure below.
func (e *Error) Unwrap() error { return e.Err }

// Is matches the error's class.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrUnavailable:
		return e.Retryable()
	case ErrRejected:
		return !e.Retryable()
	case ErrNotFound:
		return e.Code == codeNotFound || (e.Status == http.StatusNotFound && e.Code == "")
	}
	return false
}

// Retryable reports whether the same request may succeed later. A 500 counts: MLflow answers it when its own
// artifact store is away. The caller bounds the attempts.
func (e *Error) Retryable() bool {
	switch e.Status {
	case 0:
		return e.Code == ""
	case http.StatusServiceUnavailable:
		return e.Code != codeNotServed
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// denied reports whether the server knows the user and refuses what was asked for.
func (e *Error) denied() bool {
	return e.Status == http.StatusForbidden && (e.Code == codeDenied || e.Code == "" && strings.Contains(strings.ToLower(e.Message), "permission denied"))
}

// hint says what a person can do about the errors that people meet first.
func (e *Error) hint() string {
	switch {
	case e.Code == codeNotServed:
		return "the server stores no artifacts for clients: start it with --serve-artifacts, or give the experiment an s3:// location"
	case e.Code == codeHostRejected:
		return "start the server with --allowed-hosts naming this host"
	case e.Status == http.StatusUnauthorized:
		return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
	case e.denied() && (strings.HasPrefix(e.Op, "registered-models/") || strings.HasPrefix(e.Op, "model-versions/")):
		return "this user may not: ask for the permission EDIT on the registered model"
	case e.denied():
		return "this user may not: ask for the permission EDIT on the experiment"
	case e.Status == http.StatusNotFound && e.Code == "":
		return "no such route: MLFLOW_TRACKING_URI must be the address of an MLflow 3 server, path prefix included"
	case e.Status >= 300 && e.Status < 400:
		return "the server redirects: set MLFLOW_TRACKING_URI to the final address"
	}
	return ""
}

// invalid is an error found before anything was sent; it is ErrRejected.
func invalid(op, format string, args ...any) *Error {
	return &Error{Op: op, Code: codeInvalid, Message: fmt.Sprintf(format, args...)}
}

// hasCode reports whether err is an *Error with that code.
func hasCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// safeURL drops user info, query and fragment.
func safeURL(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// urlTail finds user info and queries of URLs within free text.
var urlTail = regexp.MustCompile(`([a-z][a-z0-9+.-]*://)(?:[^\s/@"']*@)?([^\s?#"']*)[?#]?[^\s"']*`)

// scrub removes user info and queries from every URL in s and shortens it to maxMessage bytes.
func scrub(s string) string {
	s = urlTail.ReplaceAllString(strings.TrimSpace(s), "$1$2")
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

// netError removes the URL that net/http puts into its errors, since it may carry a signature.
func netError(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}
