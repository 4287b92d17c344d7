package mlflowtest

import (
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
)

// Tag is a tag or a param on the wire.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Metric is a point as it was sent.
type Metric struct {
	Key           string `json:"key"`
	Value         any    `json:"value"` // number, or "NaN", "Infinity", "-Infinity"
	Timestamp     *int64 `json:"timestamp"`
	Step          int64  `json:"step"`
	ModelID       string `json:"model_id"`
	DatasetName   string `json:"dataset_name"`
	DatasetDigest string `json:"dataset_digest"`
}

// Run is a stored run.
type Run struct {
	ID, ExperimentID, Name, User, Status, ArtifactURI string
	Start, End                                        int64
	Deleted                                           bool
	Tags, Params                                      map[string]string
	Metrics                                           []Metric // in order of arrival
	Inputs                                            []Input
	Outputs                                           []string // model ids
}

// Input is a dataset of a run.
type Input struct {
	Tags    []Tag             `json:"tags"`
	Dataset map[string]string `json:"dataset"`
}

// Model is a stored logged model.
type Model struct {
	ID, ExperimentID, Name, RunID, ArtifactURI, Status string
	Created                                            int64 // a counter
	Tags, Params                                       map[string]string
}

// Version is a stored model version.
type Version struct {
	Name, Version, Source, ModelID, RunID, Description string
	Deleted                                            bool
	Tags                                               map[string]string
}

// experiment is a stored experiment.
type experiment struct {
	ID, Name, Location string
	Deleted            bool
}

// registered is a stored registered model.
type registered struct {
	Description string
	Tags        map[string]string
	Versions    []*Version
	Aliases     map[string]string
}

// store is everything the server holds.
type store struct {
	experiments []*experiment
	runs        []*Run
	models      []*Model
	registry    map[string]*registered
	files       map[string][]byte         // by path below mlflow-artifacts:/, or by s3 bucket/key
	parts       map[string]map[int][]byte // open multipart uploads
	aborted     int
}

func newStore() store {
	return store{registry: map[string]*registered{}, files: map[string][]byte{}, parts: map[string]map[int][]byte{}}
}

// Runs returns copies of all runs, deleted ones included.
func (s *Server) Runs() []Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Run
	for _, r := range s.runs {
		c := *r
		c.Tags, c.Params = maps.Clone(r.Tags), maps.Clone(r.Params)
		c.Metrics, c.Inputs, c.Outputs = slices.Clone(r.Metrics), slices.Clone(r.Inputs), slices.Clone(r.Outputs)
		out = append(out, c)
	}
	return out
}

// Models returns copies of all logged models that were not deleted.
func (s *Server) Models() []Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Model
	for _, m := range s.models {
		c := *m
		c.Tags, c.Params = maps.Clone(m.Tags), maps.Clone(m.Params)
		out = append(out, c)
	}
	return out
}

// Versions returns copies of a registered model's versions and its aliases.
func (s *Server) Versions(name string) ([]Version, map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.registry[name]
	if r == nil {
		return nil, nil
	}
	var out []Version
	for _, v := range r.Versions {
		if !v.Deleted {
			c := *v
			c.Tags = maps.Clone(v.Tags)
			out = append(out, c)
		}
	}
	return out, maps.Clone(r.Aliases)
}

// Files returns the stored artifacts by path, e.g. "1/models/m-…/artifacts/MLmodel".
func (s *Server) Files() map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.files)
}

// OpenUploads returns how many multipart uploads were neither completed nor aborted, and how many were aborted.
func (s *Server) OpenUploads() (open, aborted int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.parts), s.aborted
}

// DeleteExperiment marks an experiment deleted, as MLflow's pages do.
func (s *Server) DeleteExperiment(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.experiments {
		if e.Name == name {
			e.Deleted = true
		}
	}
}

// AddRun stores a copy of r as it is, as another client would have left it.
func (s *Server) AddRun(r Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = append(s.runs, &r)
}

func toMap(tags []Tag) map[string]string {
	out := map[string]string{}
	for _, t := range tags {
		out[t.Key] = t.Value
	}
	return out
}

func toTags(m map[string]string) []Tag {
	out := []Tag{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, Tag{k, m[k]})
	}
	return out
}

// clause is one comparison of a search filter.
var clause = regexp.MustCompile("^(?:attributes?\\.)?(tags\\.|params\\.)?`?([^`'=]+?)`?\\s*(=|LIKE)\\s*'([^']*)'$")

// matches evaluates "a = 'x' AND tags.`b` LIKE '%'" on a row.
func matches(filter string, attributes, tags, params map[string]string) (bool, *refusal) {
	if filter == "" {
		return true, nil
	}
	for _, text := range strings.Split(filter, " AND ") {
		m := clause.FindStringSubmatch(strings.TrimSpace(text))
		if m == nil {
			return false, bad("Invalid clause(s) in filter string: '%s'", text)
		}
		row := attributes
		switch m[1] {
		case "tags.":
			row = tags
		case "params.":
			row = params
		}
		value, ok := row[m[2]]
		if !ok && m[1] == "" {
			return false, bad("Invalid attribute key '%s' specified.", m[2])
		}
		if !ok || (m[3] == "=" && value != m[4]) || (m[3] == "LIKE" && !like(m[4], value)) {
			return false, nil
		}
	}
	return true, nil
}

// like matches SQL's % only.
func like(pattern, value string) bool {
	parts := strings.Split(pattern, "%")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	ok, _ := regexp.MatchString("^(?s:"+strings.Join(parts, ".*")+")$", value) // quoted: always valid
	return ok
}

// stored is the value as the server gives it back: infinities become the largest double.
func stored(v any) any {
	switch v {
	case "Infinity":
		return math.MaxFloat64
	case "-Infinity":
		return -math.MaxFloat64
	}
	return v
}
