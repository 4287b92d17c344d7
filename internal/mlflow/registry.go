package mlflow

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Version is a version of a registered model.
type Version struct {
	Name        string
	Version     string // "1", "2", …
	Source      string // models:/m-…
	ModelID     string
	RunID       string
	Status      string // READY
	Description string
	Tags        map[string]string
	Aliases     []string
}

// wireVersion is a version in replies.
type wireVersion struct {
	Name        string   `json:"name"`
	Version     string   `json:"version"`
	Source      string   `json:"source"`
	ModelID     string   `json:"model_id"`
	RunID       string   `json:"run_id"`
	Status      string   `json:"status"`
	Description string   `json:"description"`
	Tags        []pair   `json:"tags"`
	Aliases     []string `json:"aliases"`
}

func (w wireVersion) version() Version {
	v := Version{w.Name, w.Version, w.Source, w.ModelID, w.RunID, w.Status, w.Description, unpair(w.Tags), w.Aliases}
	if id, ok := strings.CutPrefix(w.Source, "models:/m-"); ok && v.ModelID == "" {
		v.ModelID = "m-" + id
	}
	return v
}

// versionReply is the reply of every call about one version.
type versionReply struct {
	Version wireVersion `json:"model_version"`
}

// EnsureRegisteredModel creates the registered model unless it exists; an existing one keeps its description and tags.
func (c *Client) EnsureRegisteredModel(ctx context.Context, name, description string, tags map[string]string) error {
	const op = "registered-models/create"
	if strings.ContainsAny(name, "/:") {
		return invalid(op, "name: got %q, want one without / and :", name)
	}
	if err := quotable(op, "name", name); err != nil {
		return err
	}
	body := map[string]any{"name": name, "description": description, "tags": tagPairs(tags, "")}
	err := c.send(ctx, http.MethodPost, op, body, nil)
	if hasCode(err, codeExists) {
		return nil
	}
	return err
}

// VersionSpec is what a version is created with.
type VersionSpec struct {
	Name        string // the registered model; it must exist
	ModelID     string // the logged model; it must exist
	RunID       string
	Key         string // value of KeyTag, without quotes; unique to this version
	Description string
	Tags        map[string]string
}

// EnsureVersion returns the version that carries spec.Key, created if missing.
func (c *Client) EnsureVersion(ctx context.Context, spec VersionSpec) (Version, error) {
	const op = "model-versions/create"
	if err := cmp.Or(quotable(op, "key", spec.Key), quotable(op, "name", spec.Name)); err != nil {
		return Version{}, err
	}
	// The server answers an unknown model with a 500, which would look passing.
	if _, err := c.GetModel(ctx, spec.ModelID); err != nil {
		return Version{}, err
	}
	body := map[string]any{
		"name": spec.Name, "source": "models:/" + spec.ModelID, "model_id": spec.ModelID, "run_id": spec.RunID,
		"description": spec.Description, "tags": tagPairs(spec.Tags, spec.Key),
	}
	return ensure(ctx, c, ensurer[Version]{
		find: func(ctx context.Context) ([]Version, error) {
			return c.searchVersions(ctx, And("name = '"+spec.Name+"'", TagIs(KeyTag, spec.Key)))
		},
		create: func(ctx context.Context) (Version, error) {
			var reply versionReply
			err := c.once(ctx, http.MethodPost, op, nil, body, &reply)
			return reply.Version.version(), err
		},
		remove: func(ctx context.Context, v Version) error {
			return c.send(ctx, http.MethodDelete, "model-versions/delete", map[string]string{"name": v.Name, "version": v.Version}, nil)
		},
		id: func(v Version) string { return v.Version },
	})
}

// searchVersions reads all pages, lowest version first.
func (c *Client) searchVersions(ctx context.Context, filter string) ([]Version, error) {
	q := url.Values{"filter": {filter}, "max_results": {"100"}}
	var out []Version
	for {
		var page struct {
			Versions []wireVersion `json:"model_versions"`
			Next     string        `json:"next_page_token"`
		}
		if err := c.once(ctx, http.MethodGet, "model-versions/search", q, nil, &page); err != nil {
			return nil, err
		}
		for _, w := range page.Versions {
			out = append(out, w.version())
		}
		if page.Next == "" {
			break
		}
		q.Set("page_token", page.Next)
	}
	number := func(v Version) int { n, _ := strconv.Atoi(v.Version); return n } // versions are numbers
	slices.SortFunc(out, func(a, b Version) int { return cmp.Compare(number(a), number(b)) })
	return out, nil
}

// GetVersion reads a version; "latest" is the highest.
func (c *Client) GetVersion(ctx context.Context, name, version string) (Version, error) {
	if version == "latest" {
		var reply struct {
			Versions []wireVersion `json:"model_versions"`
		}
		err := c.send(ctx, http.MethodPost, "registered-models/get-latest-versions", map[string]string{"name": name}, &reply)
		if err != nil {
			return Version{}, err
		}
		var best Version
		for _, w := range reply.Versions {
			if len(w.Version) > len(best.Version) || (len(w.Version) == len(best.Version) && w.Version > best.Version) {
				best = w.version()
			}
		}
		if best.Version == "" {
			return Version{}, &Error{Op: "registered-models/get-latest-versions", Status: http.StatusNotFound, Code: codeNotFound, Message: name + " has no version"}
		}
		return best, nil
	}
	var reply versionReply
	err := c.get(ctx, "model-versions/get", url.Values{"name": {name}, "version": {version}}, &reply)
	return reply.Version.version(), err
}

// SetVersionTag sets or replaces a tag of a version.
func (c *Client) SetVersionTag(ctx context.Context, name, version, key, value string) error {
	body := map[string]string{"name": name, "version": version, "key": CleanName(key), "value": cut(value, maxTagValue)}
	return c.send(ctx, http.MethodPost, "model-versions/set-tag", body, nil)
}

// reservedAlias is what models:/name@alias could not tell from a version.
var reservedAlias = regexp.MustCompile(`^(?i:latest|v?\d+)$`)

// SetAlias points an alias at a version; it moves if it was set. MLflow knows no compare-and-set.
func (c *Client) SetAlias(ctx context.Context, name, alias, version string) error {
	if alias == "" || reservedAlias.MatchString(alias) {
		return invalid("registered-models/alias", "alias: got %q, which could be taken for a version", alias)
	}
	body := map[string]string{"name": name, "alias": alias, "version": version}
	return c.send(ctx, http.MethodPost, "registered-models/alias", body, nil)
}

// GetAlias returns the version that an alias points at; ErrNotFound if there is none.
func (c *Client) GetAlias(ctx context.Context, name, alias string) (Version, error) {
	var reply versionReply
	err := c.get(ctx, "registered-models/alias", url.Values{"name": {name}, "alias": {alias}}, &reply)
	if hasCode(err, codeInvalid) && strings.Contains(err.Error(), "not found") {
		// The server answers a missing alias with 400.
		err = &Error{Op: "registered-models/alias", Status: http.StatusNotFound, Code: codeNotFound, Message: name + " has no alias " + alias}
	}
	return reply.Version.version(), err
}
