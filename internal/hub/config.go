package hub

import (
	"fmt"
	"log/slog"
	"net/url"
	"path"
	"path/filepath"
	"strings"
)

// DefaultEndpoint is Hugging Face's own hub.
const DefaultEndpoint = "https://huggingface.co"

// Config is what a [Client] needs. The zero value of each field but CacheDir is usable.
type Config struct {
	Endpoint *url.URL // the hub; nil for DefaultEndpoint
	Token    Token    // sent to the endpoint's host only
	Offline  bool     // use the cache alone
	CacheDir string   // where files are kept; required
	// Repos are the repositories that may be read: patterns of path.Match over owner/name, or over models/owner/name
	// and datasets/owner/name. Empty: all.
	Repos []string
	// Hosts are the hosts besides the endpoint's that may serve files, as patterns of path.Match over the host name.
	// Empty: Hugging Face's own for DefaultEndpoint, any for another endpoint. A host that is listed may also have a
	// private address.
	Hosts []string
}

// Token is a hub access token. It prints as asterisks.
type Token string

const hidden = "***"

// String hides the token.
func (t Token) String() string {
	if t == "" {
		return ""
	}
	return hidden
}

// GoString hides the token from %#v.
func (t Token) GoString() string { return `"` + t.String() + `"` }

// MarshalText hides the token from encoders.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// LogValue hides the token from slog.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// huggingFaceHosts serve the files of DefaultEndpoint.
var huggingFaceHosts = []string{"huggingface.co", "*.huggingface.co", "*.hf.co"}

// ConfigFromEnv reads HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, DURATUNE_HUB_REPOS and DURATUNE_HUB_HOSTS (lists of
// patterns, separated by commas), and places the cache at duratune/hub below XDG_CACHE_HOME or HOME/.cache.
func ConfigFromEnv(getenv func(string) string) (Config, error) {
	cfg := Config{Token: Token(strings.TrimSpace(getenv("HF_TOKEN"))), Offline: truthy(getenv("HF_HUB_OFFLINE"))}
	var err error
	if cfg.Endpoint, err = parseEndpoint(getenv("HF_ENDPOINT")); err != nil {
		return Config{}, err
	}
	if cfg.Repos, err = patterns("DURATUNE_HUB_REPOS", getenv("DURATUNE_HUB_REPOS")); err != nil {
		return Config{}, err
	}
	if cfg.Hosts, err = patterns("DURATUNE_HUB_HOSTS", getenv("DURATUNE_HUB_HOSTS")); err != nil {
		return Config{}, err
	}
	cache := getenv("XDG_CACHE_HOME")
	if !filepath.IsAbs(cache) { // as the XDG rules say
		home := getenv("HOME")
		if home == "" {
			return Config{}, &Error{Op: "configure", Kind: ErrInvalid, Detail: "neither XDG_CACHE_HOME nor HOME is set, so there is no place for the cache"}
		}
		cache = filepath.Join(home, ".cache")
	}
	cfg.CacheDir = filepath.Join(cache, "duratune", "hub")
	return cfg, nil
}

// parseEndpoint accepts http and https with a host; a path prefix is kept.
func parseEndpoint(value string) (*url.URL, error) {
	if value = strings.TrimSpace(value); value == "" {
		value = DefaultEndpoint
	}
	u, err := url.Parse(strings.TrimRight(value, "/"))
	problem := ""
	switch {
	case err != nil:
		problem = "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		problem = "must be http(s)://host"
	case u.User != nil:
		problem = "holds a user name or password; use HF_TOKEN"
	case u.RawQuery != "" || u.Fragment != "":
		problem = "holds a query or a fragment"
	}
	if problem != "" {
		return nil, &Error{Op: "configure", Kind: ErrInvalid, Detail: fmt.Sprintf("HF_ENDPOINT %s %s", scrub(value), problem)}
	}
	return u, nil
}

// patterns splits a comma-separated list and checks each pattern.
func patterns(name, value string) ([]string, error) {
	var list []string
	for p := range strings.SplitSeq(value, ",") {
		if p = strings.TrimSpace(p); p == "" {
			continue
		}
		if _, err := path.Match(p, ""); err != nil {
			return nil, &Error{Op: "configure", Kind: ErrInvalid, Detail: fmt.Sprintf("%s: %q is not a pattern", name, p)}
		}
		list = append(list, p)
	}
	return list, nil
}

// truthy reads a switch as the hub's Python client does.
func truthy(value string) bool {
	switch strings.ToUpper(strings.TrimSpace(value)) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// allowsRepo reports whether the configuration lets a repository be read.
func (c Config) allowsRepo(typ RepoType, name string) bool {
	return len(c.Repos) == 0 || matchAny(c.Repos, name) || matchAny(c.Repos, string(typ)+"s/"+name)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, name); ok {
			return true
		}
	}
	return false
}
