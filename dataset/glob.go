package dataset

import (
	"path"
	"strings"
)

// SplitGlob cuts a path at its first segment with a *, which is what makes it a pattern; pattern is "" if there is none.
func SplitGlob(p string) (folder, pattern string) {
	star := strings.IndexByte(p, '*')
	if star < 0 {
		return p, ""
	}
	at := strings.LastIndexByte(p[:star], '/') + 1
	return p[:at], p[at:]
}

// MatchGlob reports whether a slash-separated name matches a pattern, segment by segment: * stands for any characters of a
// segment, ** as a whole segment for any number of segments.
func MatchGlob(pattern, name string) bool {
	first, rest, more := strings.Cut(pattern, "/")
	if first == "**" && more {
		for {
			if MatchGlob(rest, name) {
				return true
			}
			_, below, deeper := strings.Cut(name, "/")
			if !deeper {
				return false
			}
			name = below
		}
	}
	segment, below, deeper := strings.Cut(name, "/")
	if first == "**" {
		return name != ""
	}
	literal := strings.NewReplacer(`\`, `\\`, `?`, `\?`, `[`, `\[`).Replace(first)
	if ok, err := path.Match(literal, segment); err != nil || !ok || more != deeper {
		return false
	}
	return !more || MatchGlob(rest, below)
}

// Hidden reports that a path below a folder is no file of a source: one of its segments begins with a dot or an
// underscore, as in _SUCCESS and .part, or it marks a folder by a slash at its end.
func Hidden(p string) bool {
	for segment := range strings.SplitSeq(p, "/") {
		if strings.HasPrefix(segment, ".") || strings.HasPrefix(segment, "_") {
			return true
		}
	}
	return strings.HasSuffix(p, "/")
}
