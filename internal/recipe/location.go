package recipe

import (
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

// hubPattern is hf://owner/name@revision; internal/hub, which reads it, has the last word on names.
var hubPattern = regexp.MustCompile(`^(datasets/|models/)?\w[\w.-]*(/\w[\w.-]*)?(@\w[\w.+/-]*)?$`)

// loggedPattern is models:/m-id, models:/name/version and models:/name@alias of MLflow.
var loggedPattern = regexp.MustCompile("^models:/(m-[0-9a-f]{32}|[^/:@%?#\"'`]{1,250}(/([0-9]+|latest)|@[A-Za-z0-9_-]{1,100}))$")

// tokenPattern is what access tokens of the hub and access keys of AWS look like.
var tokenPattern = regexp.MustCompile(`hf_[A-Za-z0-9]{20,}|(AKIA|ASIA)[A-Z0-9]{16}`)

// location checks where data or a model come from. what is "file" or "folder". Nothing of a URI that may hold a secret
// is repeated in the problem.
func (p *Problems) location(at, uri, what string) {
	want := map[string]string{
		"file":   "hf://owner/name, s3://bucket/key, s3://bucket/prefix/, file:///absolute/path or file:path below a data root",
		"folder": "hf://owner/name, s3://bucket/prefix, models:/name@alias, models:/name/version, models:/m-…, file:///absolute/folder or file:folder below a data root",
	}[what]
	u, err := url.Parse(uri)
	switch {
	case uri == "":
		p.add(at, `""`, want)
	case err != nil:
		p.add(at, "a malformed URI", want)
	case tokenPattern.MatchString(uri):
		p.add(at, "an access token", "none in a recipe; credentials come from the worker's environment")
	case strings.HasPrefix(uri, "hf://"):
		rest, query, _ := strings.Cut(strings.TrimPrefix(uri, "hf://"), "?")
		if !hubPattern.MatchString(rest) || !hubQuery(query, what) {
			p.add(at, show(plain(*u)), "hf://owner/name[@revision], without user info")
		}
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		p.add(at, show(plain(*u))+" with user info, query or fragment", "none of these; credentials come from the worker's environment")
	case u.Scheme == "models" && what == "folder":
		p.check(loggedPattern.MatchString(uri), at, uri, want)
	case u.Scheme == "s3":
		p.check(u.Host != "" && clean(strings.TrimPrefix(u.Path, "/")), at, uri, want)
	case u.Scheme == "file" && u.Opaque != "":
		p.check(clean(u.Opaque), at, uri, want)
	case u.Scheme == "file":
		p.check(u.Host == "" && clean(strings.TrimPrefix(u.Path, "/")), at, uri, want)
	default:
		p.add(at, show(plain(*u)), want)
	}
}

// hubQuery admits config and split of a data set.
func hubQuery(query, what string) bool {
	values, err := url.ParseQuery(query)
	if err != nil || len(values) > 0 && what != "file" {
		return false
	}
	for key, v := range values {
		if !slices.Contains([]string{"config", "split"}, key) || len(v) != 1 || v[0] == "" {
			return false
		}
	}
	return true
}

// clean reports that a relative path is not empty and, but for a slash at its end, its own shortest form.
func clean(p string) bool {
	p = strings.TrimSuffix(p, "/")
	return p != "" && path.Clean("/"+p) == "/"+p
}

// plain leaves out what may be secret.
func plain(u url.URL) string {
	u.User, u.RawQuery, u.ForceQuery, u.Fragment = nil, "", false, ""
	return u.String()
}
