package hub

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// RepoType is what a repository holds.
type RepoType string

// The types of repository that this package reads.
const (
	TypeModel   RepoType = "model"
	TypeDataset RepoType = "dataset"
)

// DefaultRevision is the branch that is meant where none is given.
const DefaultRevision = "main"

// Scheme begins every hub URI.
const Scheme = "hf://"

// URI names a repository: hf://[models/|datasets/]owner/name[@revision][?config=…&split=…].
type URI struct {
	Type     RepoType // "" where the URI does not say; the caller knows what it looks for
	Name     string   // owner/name, or name alone for the hub's oldest repositories
	Revision string   // branch, tag, refs/… or commit; "" for none given
	Config   string   // a data set's configuration (the hub's "subset"); "" for its default
	Split    string   // a data set's split; "" for train, or the only one there is
}

var (
	nameRE     = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?$`)
	revisionRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+/-]{0,254}$`)
	commitRE   = regexp.MustCompile(`^[0-9a-f]{40}$`)
)

// ParseURI parses a hub URI. The error is an [*Error] of kind [ErrInvalid].
func ParseURI(uri string) (URI, error) {
	u, problem := parseURI(uri)
	if problem != "" {
		return URI{}, &Error{Op: "parse " + scrub(uri), Kind: ErrInvalid, Detail: problem + "; want " + Scheme + "owner/name[@revision]"}
	}
	return u, nil
}

func parseURI(uri string) (u URI, problem string) {
	rest, ok := strings.CutPrefix(uri, Scheme)
	if !ok {
		return URI{}, "does not begin with " + Scheme
	}
	rest, query, _ := strings.Cut(rest, "?")
	if problem := u.parseQuery(query); problem != "" {
		return URI{}, problem
	}
	rest, revision, hasRevision := strings.Cut(rest, "@")
	if hasRevision && !validRevision(revision) {
		return URI{}, fmt.Sprintf("revision %q is not a branch, tag or commit", revision)
	}
	u.Revision = revision
	for prefix, typ := range map[string]RepoType{"models/": TypeModel, "datasets/": TypeDataset} {
		if name, ok := strings.CutPrefix(rest, prefix); ok {
			u.Type, rest = typ, name
			break
		}
	}
	if !validName(rest) {
		return URI{}, fmt.Sprintf("%q is not the name of a repository", rest)
	}
	u.Name = rest
	return u, ""
}

// parseQuery reads config and split; any other key is refused.
func (u *URI) parseQuery(query string) (problem string) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "the part after ? is malformed"
	}
	for key, v := range values {
		switch key {
		case "config":
			u.Config = v[0]
		case "split":
			u.Split = v[0]
		default:
			return fmt.Sprintf("unknown key %q after ?, config and split are known", key)
		}
	}
	return ""
}

// validName applies the hub's own rules for owner/name. They also keep a name from being anything but two harmless
// path segments, here and on the disk.
func validName(name string) bool {
	parts := strings.Split(name, "/")
	if len(parts) > 2 || strings.Contains(name, "--") || strings.Contains(name, "..") || strings.HasSuffix(name, ".git") {
		return false
	}
	for _, part := range parts {
		if !nameRE.MatchString(part) {
			return false
		}
	}
	return true
}

func validRevision(revision string) bool {
	return revisionRE.MatchString(revision) && !strings.Contains(revision, "..") && !strings.Contains(revision, "//")
}

// IsCommit reports whether revision is a full commit id, which always means the same bytes.
func IsCommit(revision string) bool { return commitRE.MatchString(revision) }

// pick returns the revision that is meant by a URI and a revision given beside it. A commit beside it wins, since it is
// what an earlier resolution pinned; then the URI's own; then the one beside it; then main.
func (u URI) pick(beside string) (string, error) {
	switch {
	case IsCommit(beside), u.Revision == "" && beside != "":
		if !validRevision(beside) {
			return "", &Error{Op: "resolve", Repo: u.Name, Kind: ErrInvalid, Detail: fmt.Sprintf("revision %q is not a branch, tag or commit", beside)}
		}
		return beside, nil
	case u.Revision == "":
		return DefaultRevision, nil
	case beside != "" && beside != DefaultRevision && beside != u.Revision:
		return "", &Error{Op: "resolve", Repo: u.Name, Kind: ErrInvalid,
			Detail: fmt.Sprintf("two revisions are given: %q in the URI and %q beside it; leave one out", u.Revision, beside)}
	}
	return u.Revision, nil
}
