package hub

import (
	"errors"
	"regexp"
	"strings"
	"time"
)

// Kinds of [Error], to be used with errors.Is.
var (
	// ErrInvalid says that a URI, a revision or a setting is malformed.
	ErrInvalid = errors.New("invalid hub reference")
	// ErrNotFound says that the repository, the revision or the file does not exist, or may not be known to exist.
	ErrNotFound = errors.New("not found on the hub")
	// ErrDenied says that the hub refused: gated or private without access, a bad token, a disabled repository.
	ErrDenied = errors.New("access denied by the hub")
	// ErrNotAllowed says that this worker's own configuration refuses the repository, the host or the address.
	ErrNotAllowed = errors.New("not allowed by the worker's configuration")
	// ErrUnsupported says that the repository holds nothing this package reads, e.g. only pickled weights.
	ErrUnsupported = errors.New("nothing usable in the repository")
	// ErrCorrupt says that what arrived is not what the hub states: another length or digest, or a malformed answer.
	ErrCorrupt = errors.New("content differs from what the hub states")
	// ErrUnavailable says that the hub could not be reached or failed for a passing reason; retrying may help.
	ErrUnavailable = errors.New("hub unavailable")
	// ErrOffline says that HF_HUB_OFFLINE is set and the cache does not hold what is asked for.
	ErrOffline = errors.New("hub is switched off")
)

// Error says what was done to which repository, what went wrong, and what to do about it.
type Error struct {
	Op         string        // "resolve", "download", …
	Repo       string        // owner/name
	Revision   string        // as asked for, or the commit
	File       string        // path in the repository, "" where none is concerned
	Kind       error         // one of the sentinels above
	Detail     string        // what was found, and what to do
	RetryAfter time.Duration // how long the hub asks to wait, 0 if it does not say
}

// Error names all that is known, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("hub: " + e.Op)
	if e.Repo != "" {
		b.WriteString(" " + e.Repo)
	}
	if e.Revision != "" {
		b.WriteString("@" + e.Revision)
	}
	if e.File != "" {
		b.WriteString(" " + e.File)
	}
	b.WriteString(": " + e.Kind.Error())
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	return b.String()
}

// Unwrap returns the kind.
func (e *Error) Unwrap() error { return e.Kind }

var (
	queryRE    = regexp.MustCompile(`\?[^\s"'<>]*`)
	userinfoRE = regexp.MustCompile(`://[^\s/"'@]*@`)
)

// scrub takes queries and user names out of a text that may contain URLs: a signed URL's query lets anyone in.
func scrub(text string) string {
	return userinfoRE.ReplaceAllString(queryRE.ReplaceAllString(text, "?…"), "://…@")
}
