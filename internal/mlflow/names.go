package mlflow

import (
	"crypto/sha256"
	"encoding/hex"
	"path"
	"strings"
	"unicode/utf8"
)

// Limits of the server (3.17.2), in characters where it counts those.
const (
	maxBatchMetrics = 1000
	maxBatchParams  = 100
	maxBatchTags    = 100
	maxBatchTotal   = 1000
	maxBatchBytes   = 900 << 10 // documented as 1 MB
	maxName         = 250
	maxParamValue   = 6000
	maxTagValue     = 8000
)

// CleanName makes a metric, param or tag name acceptable to the server: characters other than ASCII letters, digits
// and "_-. :/" become "_" (as Trainer's callback does), a name that is not its own normal path loses its slashes, and a
// name of more than 250 characters is cut and ends in a digest, so that two long names stay two.
func CleanName(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9', r >= 'A' && r <= 'Z', r >= 'a' && r <= 'z', strings.ContainsRune("_-. :/", r):
			return r
		}
		return '_'
	}, name)
	if len(s) > maxName {
		sum := sha256.Sum256([]byte(name))
		s = s[:maxName-9] + "-" + hex.EncodeToString(sum[:4])
	}
	// The server's own test: posixpath.normpath(name) == name, not ".", not leading "/" or "..".
	if s == "" || path.Clean(s) != s || s[0] == '/' || strings.HasPrefix(s, "..") {
		s = strings.ReplaceAll(s, "/", "_")
	}
	if s == "" || s == "." || strings.HasPrefix(s, "..") {
		s = "_" + strings.TrimLeft(s, ".")
	}
	return s
}

// cut shortens s to limit characters; it ends in "…" then.
func cut(s string, limit int) string {
	if len(s) <= limit || utf8.RuneCountInString(s) <= limit {
		return s
	}
	n := 0
	for i := range s {
		if n++; n == limit {
			return s[:i] + "…"
		}
	}
	return s
}

// quotable refuses values that cannot stand in a search filter, whose grammar has no escapes.
func quotable(op, what, value string) error {
	if value == "" || strings.ContainsAny(value, "'\"`\n") {
		return invalid(op, "%s: got %q, want text without quotes", what, value)
	}
	return nil
}

// TagIs is a search filter for runs, logged models or versions with that tag value. Neither may hold quotes.
func TagIs(key, value string) string { return "tags.`" + key + "` = '" + value + "'" }

// HasTag is a search filter for anything that carries the tag.
func HasTag(key string) string { return "tags.`" + key + "` LIKE '%'" }

// StatusIs is a search filter for runs.
func StatusIs(s Status) string { return "attributes.status = '" + string(s) + "'" }

// And joins search filters.
func And(filters ...string) string { return strings.Join(filters, " AND ") }
