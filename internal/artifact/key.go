package artifact

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on keys, in bytes: S3's on the whole and a file system's on one segment.
const (
	maxKey     = 1024
	maxSegment = 255
)

// CheckKey returns ErrInvalidKey for a key that breaks the rules of [Store].
func CheckKey(key string) error {
	if problem := keyProblem(key); problem != "" {
		return &Error{Op: "check key", URI: fmt.Sprintf("%.100q", key), Err: ErrInvalidKey, Detail: problem}
	}
	return nil
}

func keyProblem(key string) string {
	switch {
	case key == "":
		return "it is empty"
	case len(key) > maxKey:
		return fmt.Sprintf("%d bytes, the limit is %d", len(key), maxKey)
	case !utf8.ValidString(key):
		return "it is not UTF-8"
	case strings.IndexFunc(key, unicode.IsControl) >= 0:
		return "it has a control character"
	case key[0] == '.':
		return "it begins with a dot"
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch {
		case segment == "":
			return "it has an empty segment"
		case segment == "." || segment == "..":
			return fmt.Sprintf("it has a segment %q", segment)
		case len(segment) > maxSegment:
			return fmt.Sprintf("it has a segment of %d bytes, the limit is %d", len(segment), maxSegment)
		}
	}
	return ""
}

// checkPrefix admits a key, a key with a slash behind it, and "" for the whole store. It returns the prefix without
// the slash.
func checkPrefix(prefix string) (string, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	if prefix == "" {
		return "", nil
	}
	return prefix, CheckKey(prefix)
}

// below reports whether key is prefix or lies below it, by segments.
func below(key, prefix string) bool {
	if prefix == "" || key == prefix {
		return true
	}
	return strings.HasPrefix(key, prefix) && key[len(prefix)] == '/'
}

// space turns keys into URIs and back.
type space struct{ root url.URL }

// uri writes the one spelling that ref accepts: no user info, no query, whatever the key looks like.
func (s space) uri(key string) string {
	u := s.root
	u.Path = path.Join("/", u.Path, key) // valid keys have nothing that Join would clean away
	return u.String()
}

// key returns the key of an object of this store.
func (s space) key(ref Ref) (string, error) {
	refuse := func(detail string) (string, error) {
		return "", &Error{Op: "open", URI: plain(ref.URI), Err: ErrInvalidKey, Detail: detail}
	}
	if !validDigest(ref.SHA256) || ref.Bytes < 0 {
		return refuse("the ref has no digest or no size")
	}
	root := s.uri("")
	rest, ok := strings.CutPrefix(ref.URI, strings.TrimSuffix(root, "/")+"/")
	if !ok {
		return refuse("it lies outside " + root)
	}
	key, err := url.PathUnescape(rest)
	if err != nil || keyProblem(key) != "" || s.uri(key) != ref.URI {
		return refuse("it names no object")
	}
	return key, nil
}

// plain cuts from a URI that came from outside what might be secret, for an error's text.
func plain(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return "(unreadable URI)"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// validDigest accepts 64 lower-case hexadecimal digits; a digest also becomes a file name.
func validDigest(digest string) bool {
	return len(digest) == 64 && strings.Trim(digest, "0123456789abcdef") == ""
}
